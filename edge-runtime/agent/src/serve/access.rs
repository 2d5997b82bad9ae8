//! Who may ask: programs on this machine; from elsewhere, whoever has a token of the owner's file or a certificate of the
//! owner's CA.

use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ballast_bundle::Digest;
use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use tokio_rustls::TlsAcceptor;

use crate::config::Serve;
use crate::error::in_full;
use crate::time::Clock;
use crate::tls::{certificates, provider};

/// A token that can be guessed is none.
const MIN_TOKEN: usize = 16;
const MAX_TOKEN: usize = 4096;
/// While tokens are exchanged, the old and the new one count; a few more for several clients.
const MAX_TOKENS: usize = 16;
/// The file is looked at this often, at most.
const LOOK: Duration = Duration::from_secs(1);
/// Certificates and keys are a few KiB.
const MAX_PEM: u64 = 1 << 20;

/// Why the gateway does not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccessError {
    #[error(
        "{key} is {address}, which other machines can reach, and nothing says who may ask; set serve.token_file (clients then \
         send `Authorization: Bearer TOKEN`), or serve.certificate, serve.key and serve.client_ca (clients then present a \
         certificate of that CA), or serve on 127.0.0.1"
    )]
    Open { key: &'static str, address: SocketAddr },
    #[error("{key} cannot be used without {other}; set both or neither")]
    Half { key: &'static str, other: &'static str },
    #[error("serve.token_file: {0}")]
    Token(TokenError),
    #[error("{key}: {path} cannot be used: {message}")]
    Pem { key: &'static str, path: PathBuf, message: String },
    #[error("TLS cannot be set up with serve.certificate and serve.key")]
    Tls(#[from] rustls::Error),
}

/// What is wrong with the file of tokens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("{path} cannot be read: {message}")]
    Read { path: PathBuf, message: String },
    #[error("{path} can be read by others (mode {mode:04o}); chmod 600 it")]
    Mode { path: PathBuf, mode: u32 },
    #[error(
        "{path} must have one token a line, 1 to 16 of them, each of 16 to 4096 visible ASCII characters; make one with: \
         head -c 32 /dev/urandom | base64"
    )]
    Content { path: PathBuf },
}

/// What is asked of clients that come over the network.
pub(crate) struct Access {
    token: Option<TokenFile>,
    tls: Option<ServerConfig>,
    certificates: bool,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { token, tls, certificates } = self;
        let (token, tls) = (token.is_some(), tls.is_some());
        f.debug_struct("Access").field("token", &token).field("tls", &tls).field("certificates", certificates).finish()
    }
}

impl Access {
    /// As configured.
    pub(crate) fn by(serve: &Serve, clock: Arc<Clock>) -> Result<Self, AccessError> {
        let token = match &serve.token_file {
            Some(path) => Some(TokenFile::open(path).map_err(AccessError::Token)?),
            None => None,
        };
        let tls = match (&serve.certificate, &serve.key) {
            (Some(certificate), Some(key)) => Some(tls(certificate, key, serve.client_ca.as_deref(), clock)?),
            (Some(_), None) => return Err(AccessError::Half { key: "serve.certificate", other: "serve.key" }),
            (None, Some(_)) => return Err(AccessError::Half { key: "serve.key", other: "serve.certificate" }),
            (None, None) if serve.client_ca.is_some() => {
                return Err(AccessError::Half { key: "serve.client_ca", other: "serve.certificate" });
            }
            (None, None) => None,
        };
        Ok(Self { token, certificates: serve.client_ca.is_some(), tls })
    }

    /// Whether this address may be served: on this machine, or with something that says who may ask.
    pub(crate) fn allows(&self, key: &'static str, address: SocketAddr) -> Result<(), AccessError> {
        let local = address.ip().to_canonical().is_loopback();
        if !local && self.token.is_none() && !self.certificates {
            return Err(AccessError::Open { key, address });
        }
        if !local && self.tls.is_none() {
            tracing::warn!(%address, "{key} is served without TLS: whoever is on the way can read the token; set serve.certificate and serve.key");
        }
        Ok(())
    }

    /// For connections that speak these protocols.
    pub(crate) fn acceptor(&self, alpn: &[&str]) -> Option<TlsAcceptor> {
        let mut config = self.tls.clone()?;
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Some(TlsAcceptor::from(Arc::new(config)))
    }

    /// Whether a request comes from whom it should. `Err` is what its client is told.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), &'static str> {
        let Some(file) = &self.token else { return Ok(()) };
        let value = headers.get(AUTHORIZATION).ok_or("this gateway wants a token; send Authorization: Bearer TOKEN")?;
        let sent = value.as_bytes().split_at_checked(7).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "));
        let (_, sent) = sent.ok_or("Authorization must be: Bearer TOKEN")?;
        match file.knows(sent.trim_ascii()) {
            Ok(true) => Ok(()),
            Ok(false) => Err("this is none of the tokens in serve.token_file"),
            Err(()) => Err("serve.token_file cannot be used, so that nobody may ask; the gateway's log says why"),
        }
    }
}

/// The file of tokens, read again when it changed.
struct TokenFile {
    path: PathBuf,
    known: Mutex<Known>,
}

struct Known {
    looked: Instant,
    /// What the file was when it was read: its inode, size and times.
    stamp: Option<Stamp>,
    /// Of each token. A file that became unusable lets nobody in: whoever removes it wants that.
    tokens: Result<Vec<Digest>, TokenError>,
}

type Stamp = (u64, u64, i64, i64, i64, i64);

impl TokenFile {
    fn open(path: &Path) -> Result<Self, TokenError> {
        let (stamp, tokens) = (stamp(path), read(path)?);
        let known = Known { looked: Instant::now(), stamp, tokens: Ok(tokens) };
        Ok(Self { path: path.to_owned(), known: Mutex::new(known) })
    }

    fn knows(&self, token: &[u8]) -> Result<bool, ()> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.looked.elapsed() >= LOOK {
            known.looked = Instant::now();
            let now = stamp(&self.path);
            if now.is_none() || now != known.stamp {
                let tokens = read(&self.path);
                // One that could not be read is read again with the next look.
                known.stamp = now.filter(|_| tokens.is_ok());
                match &tokens {
                    Ok(all) => tracing::info!(tokens = all.len(), "serve.token_file was read again"),
                    Err(error) if known.tokens != tokens => {
                        tracing::error!(%error, "serve.token_file: nobody may ask now")
                    }
                    Err(_) => {}
                }
                known.tokens = tokens;
            }
        }
        let tokens = known.tokens.as_ref().map_err(|_| ())?;
        // Digests are compared, whole, and all of them: the time says nothing of a token.
        let sent = Digest::of(token);
        Ok(tokens.iter().fold(false, |found, token| found | same(token, &sent)))
    }
}

fn same(a: &Digest, b: &Digest) -> bool {
    let differ = a.as_bytes().iter().zip(b.as_bytes()).fold(0, |differ, (a, b)| differ | (a ^ b));
    std::hint::black_box(differ) == 0
}

fn stamp(path: &Path) -> Option<Stamp> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.ino(), found.size(), found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()))
}

fn read(path: &Path) -> Result<Vec<Digest>, TokenError> {
    let unread = |e: io::Error| TokenError::Read { path: path.to_owned(), message: e.to_string() };
    let file = File::open(path).map_err(unread)?;
    let mode = file.metadata().map_err(unread)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(TokenError::Mode { path: path.to_owned(), mode });
    }
    let mut text = Vec::new();
    file.take((MAX_TOKENS * (MAX_TOKEN + 2)) as u64 + 1).read_to_end(&mut text).map_err(unread)?;
    let lines: Vec<&[u8]> = text.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).filter(|l| !l.is_empty()).collect();
    let token = |line: &&[u8]| (MIN_TOKEN..=MAX_TOKEN).contains(&line.len()) && line.iter().all(u8::is_ascii_graphic);
    if lines.is_empty() || lines.len() > MAX_TOKENS || !lines.iter().all(token) {
        return Err(TokenError::Content { path: path.to_owned() });
    }
    Ok(lines.into_iter().map(Digest::of).collect())
}

fn tls(
    certificate: &Path,
    key: &Path,
    client_ca: Option<&Path>,
    clock: Arc<Clock>,
) -> Result<ServerConfig, AccessError> {
    let chain = certificates(&pem("serve.certificate", certificate)?).map_err(|e| AccessError::Pem {
        key: "serve.certificate",
        path: certificate.to_owned(),
        message: in_full(&e),
    })?;
    let secret = PrivateKeyDer::from_pem_slice(pem("serve.key", key)?.as_bytes()).map_err(|e| AccessError::Pem {
        key: "serve.key",
        path: key.to_owned(),
        message: e.to_string(),
    })?;
    let builder = ServerConfig::builder_with_details(provider(), clock)
        .with_safe_default_protocol_versions()
        .map_err(AccessError::Tls)?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let damaged = |message: String| AccessError::Pem { key: "serve.client_ca", path: path.to_owned(), message };
            let mut roots = RootCertStore::empty();
            for root in certificates(&pem("serve.client_ca", path)?).map_err(|e| damaged(in_full(&e)))? {
                roots.add(root).map_err(|e| damaged(e.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
            builder.with_client_cert_verifier(verifier.build().map_err(|e| damaged(e.to_string()))?)
        }
    };
    Ok(builder.with_single_cert(chain, secret)?)
}

fn pem(key: &'static str, path: &Path) -> Result<String, AccessError> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_PEM).read_to_string(&mut text));
    read.map_err(|e| AccessError::Pem { key, path: path.to_owned(), message: e.to_string() })?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn written(dir: &Path, text: &str, mode: u32) -> PathBuf {
        let path = dir.join("token");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn access(serve: &Serve) -> Result<Access, AccessError> {
        Access::by(serve, Arc::default())
    }

    #[test]
    fn only_this_machine_may_ask_where_nothing_says_who_may() {
        let open = access(&Serve::default()).unwrap();
        for address in ["127.0.0.1:1", "[::1]:1", "127.9.9.9:1", "[::ffff:127.0.0.1]:1"] {
            open.allows("serve.http", address.parse().unwrap()).unwrap();
        }
        for address in ["0.0.0.0:1", "[::]:1", "192.168.0.7:1", "[fe80::1]:1", "[::ffff:10.0.0.1]:1"] {
            let error = open.allows("serve.http", address.parse().unwrap()).unwrap_err().to_string();
            assert!(error.contains("serve.token_file") && error.contains("serve.client_ca"), "{error}");
        }
        let dir = tempfile::tempdir().unwrap();
        let token_file = Some(written(dir.path(), TOKEN, 0o600));
        let guarded = access(&Serve { token_file, ..Serve::default() }).unwrap();
        guarded.allows("serve.http", "0.0.0.0:1".parse().unwrap()).unwrap();
    }

    #[test]
    fn a_token_is_asked_for_and_every_line_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = written(dir.path(), &format!("{TOKEN}\n\n  fedcba9876543210 \n"), 0o600);
        let access = access(&Serve { token_file: Some(path), ..Serve::default() }).unwrap();
        let ask = |value: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            access.check(&headers)
        };
        assert_eq!(ask(Some("Bearer 0123456789abcdef")), Ok(()));
        assert_eq!(ask(Some("bearer  fedcba9876543210")), Ok(()));
        assert!(ask(None).unwrap_err().contains("wants a token"));
        assert!(ask(Some("Basic 0123456789abcdef")).unwrap_err().contains("must be"));
        for wrong in ["Bearer 0123456789abcdeg", "Bearer 0123456789abcde", "Bearer ", "Bearer 0123456789abcdef0"] {
            assert!(ask(Some(wrong)).unwrap_err().contains("none of the tokens"), "{wrong}");
        }
    }

    #[test]
    fn a_file_that_is_no_secret_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for (text, mode, says) in [
            (TOKEN, 0o644, "mode 0644); chmod 600"),
            (TOKEN, 0o620, "chmod 600"),
            ("", 0o600, "one token a line"),
            ("short", 0o600, "16 to 4096"),
            ("with a space in it", 0o600, "visible ASCII"),
            (&"0123456789abcdef\n".repeat(17), 0o600, "1 to 16"),
            (&"x".repeat(5000), 0o600, "16 to 4096"),
        ] {
            let token_file = Some(written(dir.path(), text, mode));
            let error = access(&Serve { token_file, ..Serve::default() }).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let token_file = Some(dir.path().join("absent"));
        let error = access(&Serve { token_file, ..Serve::default() }).unwrap_err().to_string();
        assert!(error.contains("absent cannot be read"), "{error}");
    }

    #[test]
    fn a_file_that_changed_counts_from_then_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = written(dir.path(), TOKEN, 0o600);
        let file = TokenFile::open(&path).unwrap();
        let later = |file: &TokenFile| {
            let mut known = file.known.lock().unwrap();
            known.looked = known.looked.checked_sub(LOOK).unwrap();
        };
        written(dir.path(), "fedcba9876543210-new", 0o600);
        assert_eq!(file.knows(TOKEN.as_bytes()), Ok(true), "not looked at yet");
        later(&file);
        assert_eq!(file.knows(TOKEN.as_bytes()), Ok(false));
        assert_eq!(file.knows(b"fedcba9876543210-new"), Ok(true));
        written(dir.path(), "fedcba9876543210-new", 0o666);
        later(&file);
        assert_eq!(file.knows(b"fedcba9876543210-new"), Err(()), "it is no secret any more");
        std::fs::remove_file(&path).unwrap();
        later(&file);
        assert_eq!(file.knows(b"fedcba9876543210-new"), Err(()));
    }

    #[test]
    fn half_a_setup_of_tls_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            Some(path)
        };
        let key = rcgen::KeyPair::generate().unwrap();
        let made = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        let (certificate, key) = (file("c", &made.pem()), file("k", &key.serialize_pem()));
        let other = file("o", &rcgen::KeyPair::generate().unwrap().serialize_pem());
        let rubbish = file("r", "hello");
        let with = |certificate: &Option<PathBuf>, key: &Option<PathBuf>, client_ca: &Option<PathBuf>| {
            let (certificate, key, client_ca) = (certificate.clone(), key.clone(), client_ca.clone());
            access(&Serve { certificate, key, client_ca, ..Serve::default() })
        };
        for (result, says) in [
            (with(&certificate, &None, &None), "serve.certificate cannot be used without serve.key"),
            (with(&None, &key, &None), "serve.key cannot be used without"),
            (with(&None, &None, &certificate), "serve.client_ca cannot be used without"),
            (with(&rubbish, &key, &None), "there is no certificate"),
            (with(&certificate, &rubbish, &None), "serve.key: "),
            (with(&certificate, &key, &rubbish), "serve.client_ca: "),
            (with(&certificate, &other, &None), "TLS cannot be set up"),
        ] {
            let error = result.unwrap_err().to_string();
            assert!(error.contains(says), "{says}: {error}");
        }
        let whole = with(&certificate, &key, &certificate).unwrap();
        whole.allows("serve.http", "0.0.0.0:1".parse().unwrap()).unwrap();
        let no_clients = with(&certificate, &key, &None).unwrap();
        assert!(
            no_clients.allows("serve.http", "0.0.0.0:1".parse().unwrap()).is_err(),
            "TLS alone says nothing of clients"
        );
    }
}
