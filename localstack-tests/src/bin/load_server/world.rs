//! A server and the agents that attest to it, over mTLS.

use std::time::Duration;

use anyhow::Result;
use spire_localstack_tests::load::{Node, Nodes, Server};

/// How long the server and its database rest before its memory is looked at.
const REST: Duration = Duration::from_secs(1);

/// A running server.
pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) nodes: Nodes,
}

impl World {
    /// Starts a server with an empty database.
    pub(crate) async fn start() -> Result<Self> {
        let server = Server::start().await?;
        let nodes = Nodes::of(&server);
        Ok(Self { server, nodes })
    }

    /// The server's memory once it is at rest, in bytes.
    pub(crate) async fn resident_at_rest(&self) -> Result<u64> {
        tokio::time::sleep(REST).await;
        self.server.process.resident()
    }

    /// A node with a join token.
    pub(crate) async fn candidate(&self) -> Result<Node> {
        Node::new("join_token", self.server.join_token().await?).await
    }
}
