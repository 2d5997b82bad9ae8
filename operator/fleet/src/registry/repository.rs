//! Names of repositories.

use std::fmt;
use std::str::FromStr;

use ballast_bundle::{DeploymentRef, NamespaceUid, TargetName};

/// Not a repository's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a repository of this registry")]
pub struct InvalidRepository(String);

/// `<namespace UID>/<deployment>` for bundles, `<namespace UID>/runner/<target>` for runners.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Repository {
    name: String,
    namespace: NamespaceUid,
}

impl Repository {
    /// Of a deployment's bundles. Fails for a name that no ModelDeployment can have.
    pub fn bundles(deployment: &DeploymentRef) -> Result<Self, InvalidRepository> {
        deployment.to_string().parse()
    }

    /// Of a target's runners, for the gateways of a namespace.
    pub fn runners(namespace: &NamespaceUid, target: &TargetName) -> Self {
        Self { name: format!("{namespace}/runner/{target}"), namespace: namespace.clone() }
    }

    /// The name below `/v2/`.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// Whose gateways may pull from it.
    pub const fn namespace(&self) -> &NamespaceUid {
        &self.namespace
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl FromStr for Repository {
    type Err = InvalidRepository;

    fn from_str(s: &str) -> Result<Self, InvalidRepository> {
        let invalid = || InvalidRepository(s.chars().take(80).collect());
        let mut parts = s.split('/');
        let namespace = parts.next().and_then(|n| n.parse().ok()).ok_or_else(invalid)?;
        let rest: Vec<&str> = parts.collect();
        // Components as the distribution specification spells them: nothing starts with '.' or '_'.
        let ok = |c: &&str| {
            let b = c.as_bytes();
            let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
            let outer = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            b.len() <= 253 && b.iter().all(inner) && outer(b.first()) && outer(b.last())
        };
        if rest.is_empty() || rest.len() > 2 || !rest.iter().all(ok) {
            return Err(invalid());
        }
        Ok(Self { name: s.to_owned(), namespace })
    }
}

/// Tags as the distribution specification spells them.
pub(crate) fn is_tag(s: &str) -> bool {
    let b = s.as_bytes();
    b.len() <= 128
        && b.first().is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_')
        && b.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_never_leave_their_directory() {
        assert!("ns/digits".parse::<Repository>().is_ok());
        assert!("ns/runner/x86-64-v3".parse::<Repository>().is_ok());
        for bad in
            ["", "ns", "/digits", "ns/", "ns/..", "ns/../other", "ns/_blobs", "ns/a/b/c", "ns/A", "../x", "ns/a b"]
        {
            assert!(bad.parse::<Repository>().is_err(), "{bad}");
        }
    }
}
