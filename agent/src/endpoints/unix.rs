//! A Unix socket that serves gRPC to the processes of this node, each known by what the kernel
//! tells of it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use spire_core::grpc::{
    self, AnyAuthority, Connection, Crowd, GrpcService, KNOWN_WINDOW, Place, accepted,
};
use spire_core::tasks::Tasks;
use tokio::net::{UnixListener, UnixStream};

use super::calls::Calls;
use super::socket::{self, SocketError};
use crate::workload::caller::{Caller, CallerError};

/// Connections at a time: of all processes, of those of one user, and of one process.
const CONNECTIONS: usize = 16_384;
const CONNECTIONS_OF_USER: usize = 8192;
const CONNECTIONS_OF_PROCESS: usize = 1024;

/// Calls at a time on one connection.
const STREAMS: u32 = 256;

/// Who calls, or why that is not known. Stands in the extensions of each request.
pub type FoundCaller = Arc<Result<Caller, CallerError>>;

/// Whom a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Every process of the node.
    Workloads,
    /// Operators, and whoever they put into their group.
    Operators,
}

impl Audience {
    fn mode(self) -> u32 {
        match self {
            Self::Workloads => 0o777,
            Self::Operators => 0o770,
        }
    }

    fn greeting(self) -> &'static str {
        match self {
            Self::Workloads => "Starting agent APIs",
            Self::Operators => "Starting agent admin APIs",
        }
    }
}

/// A socket that listens. Its file goes with it.
#[derive(Debug)]
pub struct UnixEndpoint {
    listener: UnixListener,
    path: PathBuf,
    file: Option<FileId>,
    audience: Audience,
    processes: Crowd<u32>,
    users: Crowd<u32>,
}

/// A connection that was let in.
struct Guest {
    stream: UnixStream,
    /// 0 where the kernel does not tell.
    pid: u32,
    _places: (Place<u32>, Place<u32>),
}

impl UnixEndpoint {
    /// Makes the socket, and its folder where that is missing. A socket that an earlier process
    /// has left is replaced.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn bind(path: &Path, audience: Audience) -> Result<Self, SocketError> {
        let listener = socket::listen(path, audience.mode())?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            file: FileId::of(path),
            audience,
            processes: Crowd::new(CONNECTIONS, CONNECTIONS_OF_PROCESS),
            users: Crowd::new(CONNECTIONS, CONNECTIONS_OF_USER),
        })
    }

    /// Serves until the tasks stop; then streams end with `UNAVAILABLE`, and calls that have an
    /// answer still give it.
    pub async fn serve<S: GrpcService>(self, services: S, tasks: Tasks) {
        tracing::info!(
            subsystem_name = "endpoints",
            address = %self.path.display(),
            network = "unix",
            "{}",
            self.audience.greeting()
        );
        let stop = tasks.stop_token();
        let calls = Calls::new(stop.clone());
        while let Some(accepted) = stop.run_until_cancelled(self.accept()).await {
            let Some(guest) = accepted else { continue };
            let services = calls.of(guest.pid, services.clone());
            let tasks_of_calls = tasks.clone();
            tasks.spawn(async move {
                let Guest { stream, _places, .. } = guest;
                let caller: FoundCaller = Arc::new(Caller::of(&stream));
                let io = TokioIo::new(AnyAuthority::new(stream));
                let connection = Connection {
                    io,
                    caller,
                    streams: STREAMS,
                    window: KNOWN_WINDOW,
                    age: Duration::MAX,
                };
                grpc::serve(connection, services, &tasks_of_calls).await;
            });
        }
    }

    async fn accept(&self) -> Option<Guest> {
        let room = self.processes.room().await;
        let room_of_users = self.users.room().await;
        let (stream, _) = accepted(self.listener.accept().await).await?;
        let peer = stream.peer_cred().ok()?;
        let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok()).unwrap_or_default();
        let process = self.processes.admit(pid, room);
        let Some(places) = process.zip(self.users.admit(peer.uid(), room_of_users)) else {
            tracing::warn!(
                subsystem_name = "endpoints",
                pid,
                uid = peer.uid(),
                "Connection refused: this process or its user has too many open"
            );
            return None;
        };
        Some(Guest { stream, pid, _places: places })
    }
}

impl Drop for UnixEndpoint {
    fn drop(&mut self) {
        // An agent that has started meanwhile may have put its own socket there.
        if self.file.is_some() && self.file == FileId::of(&self.path) {
            let _ = fs::remove_file(&self.path); // whoever starts next removes it as well
        }
    }
}

/// Device and number of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileId(u64, u64);

impl FileId {
    fn of(path: &Path) -> Option<Self> {
        let file = fs::symlink_metadata(path).ok()?;
        Some(Self(file.dev(), file.ino()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_file_goes_with_the_socket_unless_it_is_anothers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.sock");
        let first = UnixEndpoint::bind(&path, Audience::Workloads).unwrap();
        let second = UnixEndpoint::bind(&path, Audience::Workloads).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }
}
