//! Model sources: bytes from where a ModelDeployment says, checked against its digest while they arrive.
//!
//! `file:` reads below one root only, and the kernel sees to it (`openat2`, `RESOLVE_BENEATH`): no `..`, no link leads
//! out. `https:` goes to public addresses only, after resolution and after each redirect, unless the installation
//! allows others. Errors never carry the body or the digest that was found.

use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ballast_bundle::Digest;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustix::fs::{Mode, OFlags, ResolveFlags};

/// Largest model; ONNX files cannot pass 2 GiB (protobuf), and packed weights must fit a 4 GiB guest.
pub const MAX_MODEL: u64 = 2 << 30;
/// Largest file of golden vectors.
pub const MAX_GOLDEN: u64 = 16 << 20;
/// Redirects followed.
const REDIRECTS: usize = 5;
/// For a whole download.
const TIME: Duration = Duration::from_secs(600);

/// Why a source was not fetched.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    /// The URI.
    #[error("source {uri:?} cannot be used: {message}")]
    Uri {
        /// As written.
        uri: String,
        /// What is wrong and what to write.
        message: String,
    },
    /// The source did not answer with the file. Worth trying again.
    #[error("source {uri} could not be read: {message}")]
    Unavailable {
        /// As written.
        uri: String,
        /// Why.
        message: String,
    },
    /// Too long.
    #[error("source {uri} is larger than {limit} bytes")]
    TooLarge {
        /// As written.
        uri: String,
        /// Allowed.
        limit: u64,
    },
    /// Other bytes than declared. The digest that was found is not told: it would let a reader of status probe files.
    #[error(
        "source {uri} does not have the digest {wanted} that the spec declares; set source.digest to that of the file you mean (sha256sum FILE)"
    )]
    DigestMismatch {
        /// As written.
        uri: String,
        /// Declared.
        wanted: Digest,
    },
}

impl FetchError {
    /// Whether trying again may help without a change of the spec.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable { .. } => true,
            Self::Uri { .. } | Self::TooLarge { .. } | Self::DigestMismatch { .. } => false,
        }
    }
}

/// Fetches sources.
pub struct Fetcher {
    /// None: no files at all.
    root: Option<PathBuf>,
    client: reqwest::Client,
    private: bool,
}

impl Fetcher {
    /// `root`: what `file:` reads below. `private`: allow loopback, link-local and private addresses. `ca`: PEM
    /// certificates trusted besides the system's.
    pub fn new(root: &Path, private: bool, ca: Option<&[u8]>) -> Result<Self, reqwest::Error> {
        Ok(Self { root: Some(root.into()), ..Self::without_files(private, ca)? })
    }

    /// The same where `file:` has no meaning.
    pub fn without_files(private: bool, ca: Option<&[u8]>) -> Result<Self, reqwest::Error> {
        let mut builder = reqwest::Client::builder()
            .https_only(true)
            .no_proxy() // a proxy would resolve names where the address rules do not reach
            .timeout(TIME)
            .connect_timeout(Duration::from_secs(10))
            .dns_resolver(Arc::new(Resolver { private }))
            .redirect(reqwest::redirect::Policy::custom(move |attempt| {
                if attempt.previous().len() > REDIRECTS {
                    attempt.error("too many redirects")
                } else if !literal_allowed(attempt.url(), private) {
                    attempt.error("redirected to an address that is not public")
                } else {
                    attempt.follow()
                }
            }));
        if let Some(pem) = ca {
            for certificate in reqwest::Certificate::from_pem_bundle(pem)? {
                builder = builder.add_root_certificate(certificate);
            }
        }
        Ok(Self { root: None, client: builder.build()?, private })
    }

    /// The bytes at `uri`, at most `limit` of them, with the digest `wanted`.
    pub async fn fetch(&self, uri: &str, wanted: Digest, limit: u64) -> Result<Vec<u8>, FetchError> {
        let bytes = match uri.split_once(':').map(|(scheme, _)| scheme) {
            Some("file") => {
                let Some(root) = self.root.clone() else {
                    let message = "files are read in directory mode only: put it behind https://".into();
                    return Err(FetchError::Uri { uri: uri.into(), message });
                };
                let uri = uri.to_owned();
                let failed = unavailable(&uri, "the reader stopped");
                tokio::task::spawn_blocking(move || read_file(&root, &uri, limit)).await.map_err(|_| failed)??
            }
            Some("https") => self.download(uri, limit).await?,
            Some("oci" | "s3") => {
                let message = "this operator reads file: and https: sources; oci: and s3: come later".into();
                return Err(FetchError::Uri { uri: uri.into(), message });
            }
            _ => {
                let message = "write file:///path below the fleet's directory, or https://host/path".into();
                return Err(FetchError::Uri { uri: uri.into(), message });
            }
        };
        let bytes = tokio::task::spawn_blocking(move || (Digest::of(&bytes) == wanted).then_some(bytes))
            .await
            .map_err(|_| unavailable(uri, "the reader stopped"))?;
        bytes.ok_or_else(|| FetchError::DigestMismatch { uri: uri.into(), wanted })
    }

    async fn download(&self, uri: &str, limit: u64) -> Result<Vec<u8>, FetchError> {
        let bad = |message: &str| FetchError::Uri { uri: uri.into(), message: message.into() };
        let url = reqwest::Url::parse(uri).map_err(|_| bad("it is not a URL"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad("credentials do not belong into a URI; use secretRef"));
        }
        if !literal_allowed(&url, self.private) {
            return Err(bad(
                "loopback, link-local and private addresses are not allowed here (--allow-private-sources)",
            ));
        }
        let failed = |e: reqwest::Error| unavailable(uri, &explain(&e));
        let mut response = self.client.get(url).send().await.map_err(failed)?;
        if !response.status().is_success() {
            return Err(unavailable(uri, &format!("the server answered {}", response.status().as_u16())));
        }
        let too_large = || FetchError::TooLarge { uri: uri.into(), limit };
        if response.content_length().is_some_and(|n| n > limit) {
            return Err(too_large());
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if bytes.len() as u64 + chunk.len() as u64 > limit {
                return Err(too_large());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}

fn unavailable(uri: &str, message: &str) -> FetchError {
    FetchError::Unavailable { uri: uri.into(), message: message.into() }
}

/// The innermost cause, which is what helps ("connection refused"); reqwest's own text repeats the URL.
fn explain(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// `file:///models/a.onnx` is `models/a.onnx` below the root; the root's own absolute path in front is understood.
fn read_file(root: &Path, uri: &str, limit: u64) -> Result<Vec<u8>, FetchError> {
    let bad = |message: &str| FetchError::Uri { uri: uri.into(), message: message.into() };
    let path = uri.strip_prefix("file://").filter(|p| p.starts_with('/')).ok_or_else(|| bad("write file:///path"))?;
    let path = Path::new(path);
    let relative =
        path.strip_prefix(root).or_else(|_| path.strip_prefix("/")).map_err(|_| bad("write file:///path"))?;
    let open = || -> rustix::io::Result<OwnedFd> {
        let directory = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        rustix::fs::openat2(
            directory,
            relative,
            flags,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
        )
    };
    let file = File::from(open().map_err(|e| match e {
        rustix::io::Errno::XDEV => bad("it leads out of the fleet's directory; put the file below it"),
        rustix::io::Errno::NOENT => unavailable(uri, "there is no such file below the fleet's directory"),
        other => unavailable(uri, &std::io::Error::from(other).to_string()),
    })?);
    let metadata = file.metadata().map_err(|e| unavailable(uri, &e.to_string()))?;
    if !metadata.is_file() {
        return Err(bad("it is not a regular file"));
    }
    if metadata.len() > limit {
        return Err(FetchError::TooLarge { uri: uri.into(), limit });
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|e| unavailable(uri, &e.to_string()))?;
    if bytes.len() as u64 > limit {
        return Err(FetchError::TooLarge { uri: uri.into(), limit });
    }
    Ok(bytes)
}

/// Names are checked when they are resolved; addresses written as such are checked here.
fn literal_allowed(url: &reqwest::Url, private: bool) -> bool {
    let Some(host) = url.host_str() else { return false };
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    url.scheme() == "https" && host.parse::<IpAddr>().map_or(true, |ip| private || is_public(ip))
}

struct Resolver {
    private: bool,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let private = self.private;
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let allowed: Vec<SocketAddr> = found.iter().copied().filter(|a| private || is_public(a.ip())).collect();
            if allowed.is_empty() && !found.is_empty() {
                return Err("the name resolves to addresses that are not public".into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is on the public Internet (IANA special-purpose registries, RFC 6890).
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => is_public_v4(ip),
            None => is_public_v6(ip),
        },
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    !(ip.is_loopback()
        || ip.is_private()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_broadcast()
        || ip.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b)) // shared address space, RFC 6598
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (18..20).contains(&b))) // benchmarks, RFC 2544
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [a, b, ..] = ip.segments();
    // Only 2000::/3 is global unicast; in it, documentation, 6to4 and Teredo (which carry IPv4 addresses) are not.
    (a & 0xe000) == 0x2000 && a != 0x2002 && !(a == 0x2001 && (b == 0 || b == 0x0db8))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetcher(root: &Path) -> Fetcher {
        drop(rustls::crypto::ring::default_provider().install_default());
        Fetcher::new(root, false, None).unwrap()
    }

    #[test]
    fn public_addresses() {
        for yes in ["1.1.1.1", "8.8.8.8", "2606:4700::1111"] {
            assert!(is_public(yes.parse().unwrap()), "{yes}");
        }
        for no in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "::ffff:127.0.0.1",
            "2002:7f00:1::",
            "ff02::1",
            "64:ff9b::7f00:1",
        ] {
            assert!(!is_public(no.parse().unwrap()), "{no}");
        }
    }

    #[tokio::test]
    async fn files_are_read_below_the_root_only() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "secret").unwrap();
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("models")).unwrap();
        std::fs::write(root.path().join("models/a.onnx"), "model").unwrap();
        std::os::unix::fs::symlink("models/a.onnx", root.path().join("inside")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret"), root.path().join("out")).unwrap();
        std::os::unix::fs::symlink(
            "../".to_owned() + outside.path().file_name().unwrap().to_str().unwrap(),
            root.path().join("up"),
        )
        .unwrap();
        let fetcher = fetcher(root.path());
        let digest = Digest::of(b"model");
        let absolute = format!("file://{}/models/a.onnx", root.path().display());
        for uri in ["file:///models/a.onnx", "file:///inside", &absolute] {
            assert_eq!(fetcher.fetch(uri, digest, 100).await.unwrap(), b"model", "{uri}");
        }
        let secret = Digest::of(b"secret");
        let outside = format!("file://{}/secret", outside.path().display());
        for uri in [
            "file:///out",
            "file:///up/secret",
            "file:///../secret",
            &outside,
            "file://host/x",
            "file:relative",
            "ftp://x/y",
            "x",
        ] {
            let error = fetcher.fetch(uri, secret, 100).await.unwrap_err();
            assert!(matches!(error, FetchError::Uri { .. } | FetchError::Unavailable { .. }), "{uri}: {error}");
        }
        assert!(matches!(fetcher.fetch("file:///models", digest, 100).await, Err(FetchError::Uri { .. })));
        assert!(matches!(fetcher.fetch("file:///inside", digest, 4).await, Err(FetchError::TooLarge { .. })));
        let error = fetcher.fetch("file:///inside", secret, 100).await.unwrap_err();
        assert!(!error.is_transient() && !error.to_string().contains(&digest.hex()), "the found digest is not told");
    }

    #[tokio::test]
    async fn without_a_directory_no_file_is_read() {
        drop(rustls::crypto::ring::default_provider().install_default());
        let fetcher = Fetcher::without_files(false, None).unwrap();
        let error = fetcher.fetch("file:///etc/hostname", Digest::of(b""), 100).await.unwrap_err();
        assert!(matches!(error, FetchError::Uri { .. }) && error.to_string().contains("https://"), "{error}");
    }

    #[tokio::test]
    async fn https_does_not_reach_into_the_house() {
        let fetcher = fetcher(Path::new("/"));
        for uri in [
            "https://127.0.0.1/x",
            "https://[::1]/x",
            "https://169.254.169.254/x",
            "https://user:pw@1.1.1.1/x",
            "https://localhost/x",
        ] {
            let error = fetcher.fetch(uri, Digest::of(b""), 100).await.unwrap_err().to_string();
            assert!(error.contains("not") && !error.contains("refused"), "{uri}: {error}");
        }
    }
}
