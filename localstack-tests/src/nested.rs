//! A trust domain of four servers: a root, one in the middle, and two leaves below that. Each has an
//! agent; the agents of the upper two vouch for the servers below, those of the leaves for workloads.

use anyhow::Context;

use crate::server::{agent_path, entry};
use crate::user::User;
use crate::{Agent, AgentFile, Folder, Server, ServerFile};

/// The path of what runs below the left leaf, and of what runs below the right one.
pub const WORKLOADS: [&str; 2] = ["/left", "/right"];

/// What all servers and agents are told besides.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Lines in the block `server` of each server.
    pub server: String,
    /// Lines in the block `agent` of each agent.
    pub agent: String,
}

/// A server with its agent.
#[derive(Debug)]
pub struct Place {
    /// What it is called, such as `middle`.
    pub name: &'static str,
    /// The server.
    pub server: Server,
    /// The agent, whose workloads of the current user are the servers below, or workloads.
    pub agent: Agent,
    /// Where both keep their files.
    pub folder: Folder,
}

/// The whole topology, in which everything has its identity.
#[derive(Debug)]
pub struct Nested {
    /// The server that signs itself.
    pub root: Place,
    /// The one below it.
    pub middle: Place,
    /// Those below that.
    pub leaves: [Place; 2],
}

impl Nested {
    /// Starts everything from the top down; `says` is told of each place.
    ///
    /// # Errors
    /// When something does not start; the error shows its log.
    pub async fn start(settings: &Settings, says: impl Fn(&Place)) -> anyhow::Result<Self> {
        let root = Place::start("root", None, "/middle", true, settings).await?;
        says(&root);
        let middle = Place::start("middle", Some(&root), "/leaf", true, settings).await?;
        says(&middle);
        let [left, right] = WORKLOADS;
        let left = Place::start("left leaf", Some(&middle), left, false, settings).await?;
        says(&left);
        let right = Place::start("right leaf", Some(&middle), right, false, settings).await?;
        says(&right);
        Ok(Self { root, middle, leaves: [left, right] })
    }

    /// All places, from the top down.
    pub fn places(&self) -> [&Place; 4] {
        [&self.root, &self.middle, &self.leaves[0], &self.leaves[1]]
    }

    /// Stops everything in good order.
    ///
    /// # Errors
    /// When something fails while it stops.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let [left, right] = &mut self.leaves;
        for place in [left, right, &mut self.middle, &mut self.root] {
            place.agent.process().stop().await?;
            place.server.process().stop().await?;
        }
        Ok(())
    }
}

impl Place {
    /// Starts a server below `above`, with an entry for what runs on its node, and its agent.
    ///
    /// # Errors
    /// When one of the two does not start; the error shows its log.
    pub async fn start(
        name: &'static str,
        above: Option<&Self>,
        below: &str,
        downstream: bool,
        settings: &Settings,
    ) -> anyhow::Result<Self> {
        let folder = Folder::new()?;
        let plugins = above.map(Self::upstream_authority).unwrap_or_default();
        let file = ServerFile { server: settings.server.clone(), plugins, ..ServerFile::default() };
        let server = Server::start(&folder, &file).await.with_context(|| name.to_owned())?;
        let token = server.join_token().await?;
        let selector = format!("unix:uid:{}", User::current().uid);
        let mut entry = entry(&agent_path(&token), below, &selector);
        entry.downstream = downstream;
        server.create_entry(entry).await?;
        let file = AgentFile { agent: settings.agent.clone(), ..AgentFile::default() };
        let agent = Agent::start(&folder, &server, &token, &file).await;
        Ok(Self { name, server, agent: agent.with_context(|| name.to_owned())?, folder })
    }

    /// The block that hangs a server below this one.
    pub fn upstream_authority(&self) -> String {
        let (address, socket) = (self.server.address(), self.agent.socket().display());
        let (ip, port) = (address.ip(), address.port());
        format!(
            r#"UpstreamAuthority "spire" {{
        plugin_data {{
            server_address = "{ip}"
            server_port = {port}
            workload_api_socket = "{socket}"
        }}
    }}"#
        )
    }
}
