//! Trust roots: version 1 at the first start, another one when the server's address changes. Pointers are signed here.

use std::collections::BTreeMap;
use std::sync::Arc;

use ballast_bundle::{Envelope, Pointer, Role, RoleKeys, SigningKey, TrustRoot, UnixMillis, sign_pointer, sign_root};
use ballast_fleet::PointerSigner;
use serde::{Deserialize, Serialize};

use crate::keys::{self, KeyError, Keys, Vault};
use crate::state::{self, StateDir, StateError};

/// One version on disk: `roots/<version>.json`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    root: TrustRoot,
    envelope: Envelope,
}

/// All versions, and the key that signs pointers.
pub struct Trust {
    envelopes: Vec<Envelope>,
    newest: TrustRoot,
    assignment: Arc<SigningKey>,
}

/// All versions as they are on the disk, oldest first.
pub struct Roots(Vec<Stored>);

impl Roots {
    /// Reads them.
    pub fn load(state: &StateDir) -> Result<Self, StateError> {
        let mut stored = Vec::<Stored>::new();
        while let Some(next) = state::read_json(&state.path(format!("roots/{}.json", stored.len() + 1)))? {
            stored.push(next);
        }
        Ok(Self(stored))
    }

    /// Whether none was ever signed here.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys must be those that the newest root names: gateways would refuse whatever others sign.
    pub fn check_keys(&self, vault: &dyn Vault, keys: &Keys) -> Result<(), KeyError> {
        let Some(Stored { root, .. }) = self.0.last() else { return Ok(()) };
        for (role, own) in roles(keys) {
            let trusted = root.roles.get(&role);
            if !own.keys.keys().all(|id| trusted.is_some_and(|t| t.keys.contains_key(id))) {
                return Err(KeyError::Replaced(keys::path(vault, role)));
            }
        }
        let own = keys.authority.certificate_pem().trim();
        if !root.ca.iter().any(|pem| pem.trim() == own) {
            return Err(KeyError::Replaced(keys::certificate_path(vault)));
        }
        Ok(())
    }

    /// Makes the first one, or the next when what the newest says of the server is not true any more.
    pub fn for_endpoint(
        self,
        state: &StateDir,
        keys: &Keys,
        endpoint: &str,
        now: UnixMillis,
    ) -> Result<Trust, StateError> {
        let Self(mut stored) = self;
        let wanted = |version: u64, epoch: u32| TrustRoot {
            format: 1,
            fleet: state.installation().fleet.clone(),
            version,
            epoch,
            minimum_compiler: 0,
            roles: roles(keys),
            ca: vec![keys.authority.certificate_pem().to_owned()],
            endpoints: vec![endpoint.to_owned()],
            issued: now,
        };
        let newest = match stored.last() {
            None => Some(wanted(1, 1)),
            Some(Stored { root, .. }) if root.endpoints == [endpoint.to_owned()] => None,
            // Signed by the root keys of both versions, which here are the same.
            Some(Stored { root, .. }) => Some(TrustRoot {
                version: root.version + 1,
                endpoints: vec![endpoint.to_owned()],
                issued: now,
                ..root.clone()
            }),
        };
        if let Some(root) = newest {
            let envelope = sign_root(&root, &[&keys.root]);
            let made = Stored { root, envelope };
            state::write_json(&state.path(format!("roots/{}.json", made.root.version)), &made)?;
            tracing::info!(version = made.root.version, "signed a trust root");
            stored.push(made);
        }
        let newest = match stored.last() {
            Some(last) => last.root.clone(),
            None => return Err(StateError::Damaged { path: state.path("roots"), message: "no trust root".into() }),
        };
        let assignment = Arc::clone(&keys.assignment);
        Ok(Trust { envelopes: stored.into_iter().map(|s| s.envelope).collect(), newest, assignment })
    }
}

impl Trust {
    /// The newest root.
    pub const fn newest(&self) -> &TrustRoot {
        &self.newest
    }
}

impl PointerSigner for Trust {
    fn sign(&self, pointer: &Pointer) -> Envelope {
        sign_pointer(pointer, &self.assignment)
    }

    fn epoch(&self) -> u32 {
        self.newest.epoch
    }

    fn root_version(&self) -> u64 {
        self.newest.version
    }

    fn root(&self, version: u64) -> Option<Envelope> {
        self.envelopes.get(usize::try_from(version.checked_sub(1)?).ok()?).cloned()
    }
}

fn roles(keys: &Keys) -> BTreeMap<Role, RoleKeys> {
    [
        (Role::Root, &keys.root),
        (Role::Runtime, &keys.runtime),
        (Role::Release, &keys.release),
        (Role::Assignment, &keys.assignment),
    ]
    .into_iter()
    .map(|(role, key)| {
        let public = key.public();
        (role, RoleKeys { keys: [(public.key_id(), public.to_pem())].into(), threshold: 1 })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::KeyFiles;

    #[test]
    fn a_key_of_another_installation_is_refused() {
        let now = ballast_fleet::now();
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let open = |directory: &tempfile::TempDir| StateDir::open(directory.path(), now).unwrap();
        let (state, other) = (open(&one), open(&two));
        keys::load_or_make(&other, &mut KeyFiles(&other), false, b"", now).unwrap();
        let own = keys::load_or_make(&state, &mut KeyFiles(&state), false, b"", now).unwrap();
        let roots = |state| Roots::load(state).unwrap();
        assert!(roots(&state).is_empty());
        roots(&state).check_keys(&KeyFiles(&state), &own).unwrap();
        roots(&state).for_endpoint(&state, &own, "https://127.0.0.1:8443", now).unwrap();
        assert!(!roots(&state).is_empty());
        roots(&state).check_keys(&KeyFiles(&state), &own).unwrap();
        for role in ["root", "runtime", "release", "assignment"] {
            let path = state.path(format!("keys/{role}.pem"));
            let good = std::fs::read(&path).unwrap();
            std::fs::copy(other.path(format!("keys/{role}.pem")), &path).unwrap();
            let keys = keys::load_or_make(&state, &mut KeyFiles(&state), true, b"", now).unwrap();
            let Err(error) = roots(&state).check_keys(&KeyFiles(&state), &keys) else { panic!("{role}: started") };
            assert!(error.to_string().contains(&format!("keys/{role}.pem is not the one")), "{error}");
            state::write(&path, &good, 0o600).unwrap();
        }
    }
}
