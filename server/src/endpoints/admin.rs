//! The admin socket: whoever may open it is an operator of this machine, with all local rights.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use spire_core::grpc::{
    self, AnyAuthority, BACKLOG, Connection, Crowd, GrpcService, KNOWN_WINDOW, Place, accepted,
};
use spire_core::tasks::Tasks;
use tokio::net::{UnixListener, UnixSocket, UnixStream};

use super::{BindError, STREAMS};
use crate::caller::{Caller, LocalPeer};

/// What an address of a Unix socket holds, less the final zero.
const MAX_PATH_BYTES: usize = 107;

/// Connections at a time, of all processes and of each.
const CONNECTIONS: usize = 1024;
const CONNECTIONS_EACH: usize = 256;

/// The admin socket, which listens. Its file goes with it.
#[derive(Debug)]
pub struct AdminEndpoint {
    listener: UnixListener,
    path: PathBuf,
    crowd: Crowd<Option<i32>>,
}

impl AdminEndpoint {
    /// Makes the socket, and its folder where that is missing. Whatever lies at the path is removed.
    ///
    /// # Errors
    /// [`BindError`] names the step and the file.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let bytes = path.as_os_str().as_bytes().len();
        if bytes > MAX_PATH_BYTES {
            return Err(BindError::PathTooLong { path: path.to_owned(), bytes });
        }
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| BindError::Unix { what, path, source }
        };
        if let Some(folder) = path.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o750).create(folder);
            made.map_err(failed("create socket directory", folder))?;
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove what lies at the socket path", path)(error));
            }
            _ => {}
        }
        let listener = listen(path).map_err(failed("create UDS listener at", path))?;
        fs::set_permissions(path, Permissions::from_mode(0o770))
            .map_err(failed("set the mode of", path))?;
        let crowd = Crowd::new(CONNECTIONS, CONNECTIONS_EACH);
        Ok(Self { listener, path: path.to_owned(), crowd })
    }

    /// Serves until the tasks stop; calls in progress go on as tasks.
    pub async fn serve<S: GrpcService>(self, service: S, tasks: Tasks) {
        tracing::info!(
            subsystem_name = "endpoints",
            address = %self.path.display(),
            network = "unix",
            "Starting Server APIs"
        );
        let stop = tasks.stop_token();
        while let Some(accepted) = stop.run_until_cancelled(self.accept()).await {
            let Some((stream, peer, place)) = accepted else { continue };
            let (service, tasks_of_call) = (service.clone(), tasks.clone());
            tasks.spawn(async move {
                let connection = Connection {
                    io: TokioIo::new(AnyAuthority::new(stream)),
                    caller: Caller::Local(peer),
                    streams: STREAMS,
                    window: KNOWN_WINDOW,
                    age: Duration::MAX,
                };
                grpc::serve(connection, service, &tasks_of_call).await;
                drop(place);
            });
        }
    }

    async fn accept(&self) -> Option<(UnixStream, LocalPeer, Place<Option<i32>>)> {
        let room = self.crowd.room().await;
        let (stream, _) = accepted(self.listener.accept().await).await?;
        let credentials = stream.peer_cred().ok()?;
        let peer =
            LocalPeer { uid: credentials.uid(), gid: credentials.gid(), pid: credentials.pid() };
        let place = self.crowd.admit(peer.pid, room)?;
        Some((stream, peer, place))
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    socket.listen(BACKLOG)
}

impl Drop for AdminEndpoint {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path); // whoever starts next removes it as well
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_and_its_folder_have_the_modes_of_spire_and_go_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("private/api.sock");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;

        let endpoint = AdminEndpoint::bind(&path).unwrap();
        assert_eq!(mode(path.parent().unwrap()), 0o750);
        assert_eq!(mode(&path), 0o770);
        std::mem::forget(endpoint); // a crash leaves the file
        drop(AdminEndpoint::bind(&path).unwrap());
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_path_that_no_socket_can_have_is_named() {
        let path = PathBuf::from(format!("/tmp/{}", "x".repeat(103)));
        let error = AdminEndpoint::bind(&path).unwrap_err().to_string();
        assert!(error.contains("108 bytes long") && error.contains("at most 107"), "{error}");
    }
}
