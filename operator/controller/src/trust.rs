//! Trust roots: version 1 at the first start, another one when the server's address changes. Pointers are signed here.

use std::collections::BTreeMap;
use std::sync::Arc;

use ballast_bundle::{Envelope, Pointer, Role, RoleKeys, SigningKey, TrustRoot, UnixMillis, sign_pointer, sign_root};
use ballast_fleet::PointerSigner;
use serde::{Deserialize, Serialize};

use crate::keys::Keys;
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

/// Whether a trust root was ever signed here.
pub fn exists(state: &StateDir) -> bool {
    state.path("roots/1.json").exists()
}

/// Loads the roots; makes the first, or the next when what it says of the server is not true any more.
pub fn load_or_make(state: &StateDir, keys: &Keys, endpoint: &str, now: UnixMillis) -> Result<Trust, StateError> {
    let mut stored = Vec::<Stored>::new();
    while let Some(next) = state::read_json(&state.path(format!("roots/{}.json", stored.len() + 1)))? {
        stored.push(next);
    }
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
