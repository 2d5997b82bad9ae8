//! The administrator's listener: HTTP/1.1 over a unix socket that only its owner may open.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

/// The administrator's socket cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the administrator's socket {path} cannot be {doing}: {source}")]
pub struct AdminError {
    doing: &'static str,
    path: PathBuf,
    /// In the sentence, so no `source()` besides.
    r#source: io::Error,
}

/// A bound socket.
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl AdminSocket {
    /// Binds with mode 0600. A socket that a dead process left behind is replaced; a living one's is not.
    pub async fn bind(path: &Path) -> Result<Self, AdminError> {
        let fail = |doing| move |source| AdminError { doing, path: path.to_owned(), source };
        if let Ok(metadata) = std::fs::symlink_metadata(path) {
            if !metadata.file_type().is_socket() {
                return Err(fail("bound")(io::Error::other("there is a file of that name that is no socket")));
            }
            if UnixStream::connect(path).await.is_ok() {
                return Err(fail("bound")(io::Error::other("another operator answers on it")));
            }
            std::fs::remove_file(path).map_err(fail("replaced"))?;
        }
        // Bound under a name in a directory of our own and moved into place, so that it is never open to others.
        let parent = path.parent().unwrap_or(Path::new("."));
        let mut random = [0; 4];
        getrandom::fill(&mut random).map_err(|e| fail("bound")(io::Error::other(e.to_string())))?;
        let private = parent.join(format!(".adm{:08x}", u32::from_le_bytes(random)));
        std::fs::create_dir(&private).map_err(fail("bound"))?;
        let bound = (|| {
            std::fs::set_permissions(&private, std::fs::Permissions::from_mode(0o700))?;
            let temporary = private.join("s");
            let listener = UnixListener::bind(&temporary)?;
            std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o600))?;
            std::fs::rename(&temporary, path)?;
            Ok(listener)
        })();
        drop(std::fs::remove_dir_all(&private));
        Ok(Self { listener: bound.map_err(fail("bound"))?, path: path.to_owned() })
    }

    /// Serves until `stop` turns true; removes the socket at the end.
    pub async fn serve(self, router: Router, mut stop: watch::Receiver<bool>) {
        let mut tasks = tokio::task::JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = crate::stopped(&mut stop) => break,
            };
            while tasks.try_join_next().is_some() {}
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let router = router.clone();
            let mut stop = stop.clone();
            tasks.spawn(async move {
                let mut connection = std::pin::pin!(
                    http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(Duration::from_secs(30))
                        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
                );
                tokio::select! {
                    _ = connection.as_mut() => {}
                    () = crate::stopped(&mut stop) => {
                        connection.as_mut().graceful_shutdown();
                        drop(connection.await);
                    }
                }
            });
        }
        let drained = async { while tasks.join_next().await.is_some() {} };
        drop(tokio::time::timeout(Duration::from_secs(2), drained).await);
        drop(std::fs::remove_file(&self.path)); // a new operator replaces it anyway
    }
}
