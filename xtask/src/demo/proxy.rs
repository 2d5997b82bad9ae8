//! The cable between one gateway and the operator, with a pair of scissors.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Forwards TCP connections until it is cut; bytes (TLS) pass through unread.
#[derive(Debug)]
pub struct Cable {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    cut: AtomicBool,
    ended: AtomicBool,
    upstream: SocketAddr,
    streams: Mutex<Vec<TcpStream>>,
}

impl Cable {
    /// Listens on a free local port and forwards to `upstream`.
    pub fn lay(upstream: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            cut: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            upstream,
            streams: Mutex::new(Vec::new()),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if accepting.ended.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || shared.forward(&client));
            }
        });
        Ok(Self { address, shared })
    }

    /// Where the gateway connects to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection; new ones are closed at once until [`Self::mend`].
    pub fn cut(&self) {
        self.shared.cut.store(true, Ordering::SeqCst);
        self.shared.drop_all();
    }

    /// Lets connections through again.
    pub fn mend(&self) {
        self.shared.cut.store(false, Ordering::SeqCst);
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.shared.drop_all();
        // Wakes the accepting thread so that it sees the end.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn forward(&self, client: &TcpStream) {
        // The operator may be down: then the client's connection closes, as it would without us.
        let Ok(server) = TcpStream::connect(self.upstream) else { return };
        let (Ok(a), Ok(b)) = (client.try_clone(), server.try_clone()) else { return };
        {
            let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
            streams.retain(|s| s.peer_addr().is_ok());
            streams.extend([a, b]);
        }
        // After registering: a cut before this line ends here, one after it finds the streams.
        if self.cut.load(Ordering::SeqCst) {
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
            return;
        }
        std::thread::scope(|scope| {
            scope.spawn(|| pump(client, &server));
            pump(&server, client);
        });
    }

    fn drop_all(&self) {
        for stream in self.streams.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn pump(mut from: &TcpStream, mut to: &TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_cut_ends_connections_and_mending_lets_new_ones_through() {
        let server = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let cable = Cable::lay(server.local_addr().unwrap()).unwrap();
        std::thread::spawn(move || {
            for mut stream in server.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut byte = [0];
                    while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
                });
            }
        });
        let echo = |stream: &mut TcpStream| {
            let mut byte = [0];
            stream.write_all(b"x").is_ok() && stream.read_exact(&mut byte).is_ok() && byte == *b"x"
        };
        let mut first = TcpStream::connect(cable.address()).unwrap();
        assert!(echo(&mut first));
        cable.cut();
        assert!(!echo(&mut first));
        assert!(!TcpStream::connect(cable.address()).is_ok_and(|mut s| echo(&mut s)));
        cable.mend();
        assert!(echo(&mut TcpStream::connect(cable.address()).unwrap()));
    }
}
