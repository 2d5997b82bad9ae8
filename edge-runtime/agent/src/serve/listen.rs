//! Where clients connect: TCP, with or without TLS, and a Unix socket.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsAcceptor;

use super::access::{Access, AccessError};

/// A handshake that takes longer is given up.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Who may connect to the Unix socket: the gateway's user and group.
const SOCKET_MODE: u32 = 0o660;

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error("{address} is in use by another program; stop it, or choose another with {} ADDRESS:PORT", flag(.key))]
    InUse { key: &'static str, address: String },
    #[error("cannot serve on {address}; choose another with {} ADDRESS:PORT", flag(.key))]
    Bind { key: &'static str, address: String, source: io::Error },
    #[error("serve.unix: {path} is in use by another program; stop it, or choose another path")]
    SocketInUse { path: PathBuf },
    #[error("serve.unix: {path} is there and is no socket; move it away, or choose another path")]
    NoSocket { path: PathBuf },
    #[error("serve.unix: cannot serve on {path}; its folder must be there, and be the gateway's to write in")]
    Socket { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Access(#[from] AccessError),
}

/// The flag that sets a key: `--http` for `serve.http`.
fn flag(key: &str) -> String {
    format!("--{}", key.trim_start_matches("serve."))
}

/// One place where clients connect.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Socket,
    tls: Option<Tls>,
    /// Whether a token is asked for, where there are any.
    pub(crate) guarded: bool,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    /// Removed when nothing is served any more.
    Unix(UnixListener, PathBuf),
}

/// A connection that was accepted, and who is at its other end.
pub(crate) struct Accepted {
    stream: Stream,
    tls: Option<Tls>,
    pub(crate) peer: String,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

#[derive(Clone)]
struct Tls(TlsAcceptor);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

/// Bytes in both directions, whatever they go through.
pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

impl Listener {
    /// Takes an address, if clients of it are asked for something where they must be.
    pub(crate) async fn tcp(
        key: &'static str,
        address: &str,
        access: &Access,
        alpn: &[&str],
    ) -> Result<Self, ServeError> {
        let listener = TcpListener::bind(address).await.map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => ServeError::InUse { key, address: address.to_owned() },
            _ => ServeError::Bind { key, address: address.to_owned(), source },
        })?;
        let bound = listener.local_addr();
        let bound = bound.map_err(|source| ServeError::Bind { key, address: address.to_owned(), source })?;
        access.allows(key, bound)?;
        Ok(Self { socket: Socket::Tcp(listener), tls: access.acceptor(alpn).map(Tls), guarded: true })
    }

    /// Takes a path; a socket that a process left there when it was killed is replaced.
    pub(crate) fn unix(path: &Path) -> Result<Self, ServeError> {
        let (owned, failed) = (|| path.to_owned(), |source| ServeError::Socket { path: path.to_owned(), source });
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => return Err(ServeError::NoSocket { path: owned() }),
            Ok(_) if StdUnixStream::connect(path).is_ok() => return Err(ServeError::SocketInUse { path: owned() }),
            Ok(_) => std::fs::remove_file(path).map_err(failed)?,
            Err(_) => {}
        }
        // Nobody connects before the mode is as it must be: the process has one thread yet, and so one mask.
        let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
        let bound = UnixListener::bind(path);
        rustix::process::umask(mask);
        let listener = bound.map_err(failed)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
        Ok(Self { socket: Socket::Unix(listener, owned()), tls: None, guarded: false })
    }

    /// Its address, if it has one.
    pub(crate) fn address(&self) -> Option<std::net::SocketAddr> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            Socket::Unix(..) => None,
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        let (stream, peer) = match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                (Stream::Tcp(stream), peer.to_string())
            }
            Socket::Unix(listener, _) => (Stream::Unix(listener.accept().await?.0), "a local program".to_owned()),
        };
        Ok(Accepted { stream, tls: self.tls.clone(), peer })
    }

    /// Those who connected before it closes; straight from the kernel, the runtime may not have heard of them yet.
    pub(crate) fn waiting(self) -> Vec<Accepted> {
        let mut all = Vec::new();
        let mut add = |stream, peer| all.push(Accepted { stream, tls: self.tls.clone(), peer });
        match self.socket {
            Socket::Tcp(listener) => {
                let Ok(listener) = listener.into_std() else { return all };
                while let Ok((stream, peer)) = listener.accept() {
                    let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
                    stream.into_iter().for_each(|stream| add(Stream::Tcp(stream), peer.to_string()));
                }
            }
            Socket::Unix(listener, path) => {
                let _ = std::fs::remove_file(path);
                let Ok(listener) = listener.into_std() else { return all };
                while let Ok((stream, _)) = listener.accept() {
                    let stream = stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream));
                    stream.into_iter().for_each(|stream| add(Stream::Unix(stream), "a local program".to_owned()));
                }
            }
        }
        all
    }
}

impl Accepted {
    /// The bytes that are inside, after TLS where it is spoken.
    pub(crate) async fn open(self) -> io::Result<Box<dyn Io>> {
        match self.stream {
            Stream::Unix(stream) => Ok(Box::new(stream)),
            Stream::Tcp(stream) => {
                let _ = stream.set_nodelay(true);
                let Some(Tls(acceptor)) = self.tls else { return Ok(Box::new(stream)) };
                let slow = |_| io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long");
                Ok(Box::new(tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await.map_err(slow)??))
            }
        }
    }
}
