//! The installation's private keys, one per role, made at the first start and never again: in files, or in Secrets
//! (`kubernetes::KeySecrets`).
//!
//! `keys/{root,runtime,release,assignment}.pem` and `keys/ca.pem` are 0600. Once a trust root names them, gateways
//! trust them: a missing key then stops the operator, since new ones would cut off every gateway.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use ballast_bundle::{Role, SigningKey, UnixMillis};
use ballast_fleet::ca::Authority;

use crate::state::{self, StateDir, StateError};

/// Keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Gone, while gateways trust it.
    #[error(
        "the key {0} is missing, but gateways of this fleet trust it; restore it from the backup (new keys would cut off every gateway)"
    )]
    Missing(PathBuf),
    /// Another one, while gateways trust the old one.
    #[error(
        "the key {0} is not the one that gateways of this fleet trust; restore that one from the backup (gateways would refuse what this one signs)"
    )]
    Replaced(PathBuf),
    /// Readable by others.
    #[error("the key {0} can be read by other users; run chmod 600 on it, and think about who may have copied it")]
    TooOpen(PathBuf),
    /// Not a key.
    #[error("the key {path} cannot be used: {message}; restore it from the backup")]
    Broken {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// Files.
    #[error(transparent)]
    State(#[from] StateError),
}

/// All signing keys of one installation.
pub struct Keys {
    /// Signs trust roots.
    pub root: Arc<SigningKey>,
    /// Signs runners.
    pub runtime: Arc<SigningKey>,
    /// Signs releases.
    pub release: Arc<SigningKey>,
    /// Signs pointers.
    pub assignment: Arc<SigningKey>,
    /// The certificate authority.
    pub authority: Arc<Authority>,
}

/// The files of all keys: one a role, and the authority's two.
pub const KEYS: [&str; 6] =
    ["root.pem", "runtime.pem", "release.pem", "assignment.pem", AUTHORITY_KEY, AUTHORITY_CERTIFICATE];
const AUTHORITY_KEY: &str = "ca.pem";
const AUTHORITY_CERTIFICATE: &str = "ca-certificate.pem";

/// Where keys are kept.
pub trait Vault {
    /// The text of a key's file, if it is there.
    fn read(&self, file: &str) -> Result<Option<String>, KeyError>;
    /// Keeps a new one.
    fn make(&mut self, file: &str, text: &str) -> Result<(), KeyError>;
    /// For people.
    fn place(&self, file: &str) -> PathBuf;
}

/// Keys in files of the state directory.
pub struct KeyFiles<'a>(pub &'a StateDir);

impl Vault for KeyFiles<'_> {
    fn read(&self, file: &str) -> Result<Option<String>, KeyError> {
        let path = self.place(file);
        if file == AUTHORITY_CERTIFICATE {
            return Ok(fs::read_to_string(path).ok());
        }
        read_private(&path)
    }

    fn make(&mut self, file: &str, text: &str) -> Result<(), KeyError> {
        let mode = if file == AUTHORITY_CERTIFICATE { 0o644 } else { 0o600 };
        Ok(state::write(&self.place(file), text.as_bytes(), mode)?)
    }

    fn place(&self, file: &str) -> PathBuf {
        self.0.path(format!("keys/{file}"))
    }
}

/// Loads the keys. `trusted`: a trust root exists or gateways are enrolled; then nothing is made. Keys are PEM, or as
/// `cosign generate-key-pair` writes them, under `password`.
pub fn load_or_make(
    state: &StateDir,
    vault: &mut dyn Vault,
    trusted: bool,
    password: &[u8],
    now: UnixMillis,
) -> Result<Keys, KeyError> {
    let mut signing = |role: Role| -> Result<Arc<SigningKey>, KeyError> {
        let file = format!("{}.pem", role_file(role));
        let path = vault.place(&file);
        let broken = |message: String| KeyError::Broken { path: path.clone(), message };
        if let Some(pem) = vault.read(&file)? {
            return SigningKey::from_pem_or_cosign(&pem, password).map(Arc::new).map_err(|e| broken(e.to_string()));
        }
        if trusted {
            return Err(KeyError::Missing(path));
        }
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|e| broken(e.to_string()))?;
        let key = SigningKey::generate(random).map_err(|e| broken(e.to_string()))?;
        let pem = key.to_pem().map_err(|e| broken(e.to_string()))?;
        vault.make(&file, &pem)?;
        tracing::info!(role = role_file(role), "made a signing key");
        Ok(Arc::new(key))
    };
    Ok(Keys {
        root: signing(Role::Root)?,
        runtime: signing(Role::Runtime)?,
        release: signing(Role::Release)?,
        assignment: signing(Role::Assignment)?,
        authority: Arc::new(authority(state, vault, trusted, now)?),
    })
}

fn authority(state: &StateDir, vault: &mut dyn Vault, trusted: bool, now: UnixMillis) -> Result<Authority, KeyError> {
    let fleet = state.installation().fleet.clone();
    let (key_path, certificate_path) = (vault.place(AUTHORITY_KEY), vault.place(AUTHORITY_CERTIFICATE));
    let broken = |message: String| KeyError::Broken { path: key_path.clone(), message };
    let (key, certificate) = match (vault.read(AUTHORITY_KEY)?, vault.read(AUTHORITY_CERTIFICATE)?) {
        (Some(key), Some(certificate)) => (key, certificate),
        (key, _) if trusted => {
            return Err(KeyError::Missing(if key.is_none() { key_path } else { certificate_path }));
        }
        // A first start that was cut off between the two files: nobody trusts either yet.
        _ => {
            let (key, certificate) = Authority::generate(&fleet, now).map_err(|e| broken(e.to_string()))?;
            vault.make(AUTHORITY_KEY, &key)?;
            vault.make(AUTHORITY_CERTIFICATE, &certificate)?;
            (key, certificate)
        }
    };
    let authority = Authority::from_pem(fleet, &key, &certificate).map_err(|e| broken(e.to_string()))?;
    state::write(&state.path("ca.pem"), certificate.as_bytes(), 0o644)?;
    Ok(authority)
}

fn read_private(path: &PathBuf) -> Result<Option<String>, KeyError> {
    let fail = |source| StateError::File { doing: "read", path: path.clone(), source };
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(fail(e).into()),
    };
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(KeyError::TooOpen(path.clone()));
    }
    Ok(Some(fs::read_to_string(path).map_err(fail)?))
}

/// Where a role's key is.
pub fn path(vault: &dyn Vault, role: Role) -> PathBuf {
    vault.place(&format!("{}.pem", role_file(role)))
}

/// Where the authority's certificate is.
pub fn certificate_path(vault: &dyn Vault) -> PathBuf {
    vault.place(AUTHORITY_CERTIFICATE)
}

const fn role_file(role: Role) -> &'static str {
    match role {
        Role::Root => "root",
        Role::Runtime => "runtime",
        Role::Release => "release",
        Role::Assignment => "assignment",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &std::path::Path) -> StateDir {
        StateDir::open(path, UnixMillis(1)).unwrap()
    }

    fn now() -> UnixMillis {
        ballast_fleet::now()
    }

    #[test]
    fn keys_are_private_and_stay() {
        let directory = tempfile::tempdir().unwrap();
        let state = open(directory.path());
        let keys = load_or_make(&state, &mut KeyFiles(&state), false, b"", now()).unwrap();
        for role in ["root", "runtime", "release", "assignment", "ca"] {
            let mode = fs::metadata(state.path(format!("keys/{role}.pem"))).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{role}");
        }
        let again = load_or_make(&state, &mut KeyFiles(&state), true, b"", now()).unwrap();
        assert_eq!(again.root.public().key_id(), keys.root.public().key_id());
        assert_eq!(again.authority.digest(), keys.authority.digest());
    }

    #[test]
    fn a_missing_key_that_gateways_trust_stops_the_operator() {
        for gone in ["root", "runtime", "release", "assignment", "ca", "ca-certificate"] {
            let directory = tempfile::tempdir().unwrap();
            let state = open(directory.path());
            load_or_make(&state, &mut KeyFiles(&state), false, b"", now()).unwrap();
            fs::remove_file(state.path(format!("keys/{gone}.pem"))).unwrap();
            let Err(error) = load_or_make(&state, &mut KeyFiles(&state), true, b"", now()) else {
                panic!("{gone}: started")
            };
            assert!(matches!(error, KeyError::Missing(_)), "{gone}: {error}");
            assert!(!state.path(format!("keys/{gone}.pem")).exists(), "{gone}: nothing was made");
        }
    }

    #[test]
    fn a_key_may_be_as_cosign_writes_it() {
        let directory = tempfile::tempdir().unwrap();
        let state = open(directory.path());
        load_or_make(&state, &mut KeyFiles(&state), false, b"", now()).unwrap();
        let fixture = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bundle/tests/cosign");
        let key = fs::read(fixture.join("cosign.key")).unwrap();
        state::write(&state.path("keys/release.pem"), &key, 0o600).unwrap();
        let keys = load_or_make(&state, &mut KeyFiles(&state), true, b"correct horse", now()).unwrap();
        let public = fs::read_to_string(fixture.join("cosign.pub")).unwrap();
        assert_eq!(keys.release.public().to_pem().trim(), public.trim());
        assert!(matches!(
            load_or_make(&state, &mut KeyFiles(&state), true, b"wrong", now()),
            Err(KeyError::Broken { .. })
        ));
    }

    #[test]
    fn keys_that_others_can_read_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let state = open(directory.path());
        load_or_make(&state, &mut KeyFiles(&state), false, b"", now()).unwrap();
        let path = state.path("keys/release.pem");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(load_or_make(&state, &mut KeyFiles(&state), true, b"", now()), Err(KeyError::TooOpen(_))));
    }
}
