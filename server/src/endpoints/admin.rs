//! The admin socket: whoever may open it is an operator of this machine, with all local rights.

use std::path::Path;

use spire_core::grpc::{self, Connection, Crowd, GrpcService, Place, UnixSocket};
use spire_core::tasks::Tasks;
use tokio::net::UnixStream;

use super::{BindError, STREAMS};
use crate::caller::{Caller, LocalPeer};

/// Connections at a time, of all processes and of each.
const CONNECTIONS: usize = 1024;
const CONNECTIONS_EACH: usize = 256;

/// The admin socket, which listens. Its file goes with it.
#[derive(Debug)]
pub struct AdminEndpoint {
    socket: UnixSocket,
    crowd: Crowd<Option<i32>>,
}

impl AdminEndpoint {
    /// Makes the socket, and its folder where that is missing. A socket that an earlier process
    /// has left is replaced.
    ///
    /// # Errors
    /// [`BindError::Socket`].
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let socket = UnixSocket::bind(path, 0o770, 0o750)?;
        Ok(Self { socket, crowd: Crowd::new(CONNECTIONS, CONNECTIONS_EACH) })
    }

    /// Serves until the tasks stop; calls in progress go on as tasks.
    pub async fn serve<S: GrpcService>(self, service: S, tasks: Tasks) {
        tracing::info!(
            subsystem_name = "endpoints",
            address = %self.socket.path().display(),
            network = "unix",
            "Starting Server APIs"
        );
        let stop = tasks.stop_token();
        while let Some(accepted) = stop.run_until_cancelled(self.accept()).await {
            let Some((stream, peer, place)) = accepted else { continue };
            let (service, tasks_of_call) = (service.clone(), tasks.clone());
            tasks.spawn(async move {
                let connection = Connection::local(stream, Caller::Local(peer), STREAMS);
                grpc::serve(connection, service, &tasks_of_call).await;
                drop(place);
            });
        }
    }

    async fn accept(&self) -> Option<(UnixStream, LocalPeer, Place<Option<i32>>)> {
        let room = self.crowd.room().await;
        let (stream, peer) = self.socket.accept().await?;
        let peer = LocalPeer { uid: peer.uid(), gid: peer.gid(), pid: peer.pid() };
        let place = self.crowd.admit(peer.pid, room)?;
        Some((stream, peer, place))
    }
}
