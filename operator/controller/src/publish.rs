//! From artifacts to a signed release in the registry. The release's counter is durable before this is called.

use ballast_bundle::manifest::{MANIFEST_TYPE, bundle_manifest, statement_manifest};
use ballast_bundle::{
    Contract, DeploymentRef, RELEASE_PREDICATE, ReleaseLayers, ReleaseNumber, ReleaseRef, ReleaseStatement, SigningKey,
    TargetName, sign_release,
};
use ballast_compiler::{Artifacts, COMPILER_VERSION};
use ballast_fleet::registry::{Registry, RegistryError, Repository};

/// A release could not be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The compiler's contract.
    #[error("the compiler's contract cannot be read: {0}")]
    Contract(String),
    /// A name that no repository can have.
    #[error(transparent)]
    Name(#[from] ballast_fleet::registry::InvalidRepository),
    /// Registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// Puts the bundle for one target and its statement into the registry. Blocking. Doing it again changes nothing.
pub fn publish(
    registry: &Registry,
    key: &SigningKey,
    deployment: &DeploymentRef,
    version: &str,
    number: ReleaseNumber,
    target: &TargetName,
    artifacts: &Artifacts,
) -> Result<ReleaseRef, PublishError> {
    let contract: Contract =
        serde_json::from_slice(&artifacts.contract).map_err(|e| PublishError::Contract(e.to_string()))?;
    let repository = Repository::bundles(deployment)?;
    let layers = ReleaseLayers {
        weights: registry.put_blob(&repository, &artifacts.weights)?,
        plan: registry.put_blob(&repository, &artifacts.plan)?,
        contract: registry.put_blob(&repository, &artifacts.contract)?,
        golden: registry.put_blob(&repository, &artifacts.golden)?,
    };
    let bundle = bundle_manifest(&layers, &contract);
    registry.put_blob(&repository, &bundle.config)?;
    let manifest = registry.put_manifest(&repository, MANIFEST_TYPE, &bundle.manifest, &[&tag(version, target)])?;
    let statement = ReleaseStatement {
        deployment: deployment.clone(),
        version: version.to_owned(),
        number,
        target: target.clone(),
        abi: contract.abi,
        compiler: COMPILER_VERSION,
        manifest: manifest.clone(),
        layers,
    };
    let statement = registry.put_blob(&repository, &sign_release(&statement, key))?;
    let referrer = statement_manifest(&statement, &manifest, RELEASE_PREDICATE);
    registry.put_blob(&repository, &referrer.config)?;
    registry.put_manifest(&repository, MANIFEST_TYPE, &referrer.manifest, &[])?;
    Ok(ReleaseRef { version: version.to_owned(), number, repository: repository.to_string(), manifest, statement })
}

/// `<version>-<target>`, within what a tag may be.
fn tag(version: &str, target: &TargetName) -> String {
    let text = format!("{version}-{target}");
    let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' };
    let text: String = text.chars().map(safe).take(128).collect();
    if text.starts_with(['.', '-']) { format!("v{}", &text[1..]) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_version_has_a_tag() {
        let target: TargetName = "x86-64".parse().unwrap();
        assert_eq!(tag("1.4.0", &target), "1.4.0-x86-64");
        assert_eq!(tag("1.4.0+build 7", &target), "1.4.0_build_7-x86-64");
        assert_eq!(tag("-x", &target), "vx-x86-64");
        assert_eq!(tag(&"9".repeat(300), &target).len(), 128);
    }
}
