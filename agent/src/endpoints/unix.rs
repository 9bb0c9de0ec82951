//! A Unix socket that serves gRPC to the processes of this node, each known by what the kernel
//! tells of it.

use std::path::Path;
use std::sync::Arc;

use spire_core::grpc::{self, Connection, Crowd, GrpcService, Place, SocketError, UnixSocket};
use spire_core::tasks::Tasks;
use tokio::net::UnixStream;

use super::calls::Calls;
use crate::workload::caller::{Caller, CallerError};

/// Connections at a time: of all processes, of those of one user, and of one process.
const CONNECTIONS: usize = 16_384;
const CONNECTIONS_OF_USER: usize = 8192;
const CONNECTIONS_OF_PROCESS: usize = 1024;

/// Calls at a time on one connection.
const STREAMS: u32 = 256;

/// The mode of a socket's folder: all may enter it, as far as the umask lets them. That of the
/// Workload API's socket is made before the umask is tightened.
pub(crate) const SOCKET_FOLDER_MODE: u32 = 0o755;

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
    socket: UnixSocket,
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
        Ok(Self {
            socket: UnixSocket::bind(path, audience.mode(), SOCKET_FOLDER_MODE)?,
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
            address = %self.socket.path().display(),
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
                let connection = Connection::local(stream, caller, STREAMS);
                grpc::serve(connection, services, &tasks_of_calls).await;
            });
        }
    }

    async fn accept(&self) -> Option<Guest> {
        let room = self.processes.room().await;
        let room_of_users = self.users.room().await;
        let (stream, peer) = self.socket.accept().await?;
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
