//! Agents that move from server to server, and nodes that race to be the one that may join.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::future::join_all;
use futures::stream;
use prost::Message;
use spire_agent::client::{Server as Client, ServerAddress};
use spire_core::bundle::Bundle;
use spire_core::id::SpiffeId;
use spire_core::wire::agent::CreateJoinTokenRequest;
use spire_core::wire::agent::agent_client::AgentClient;
use spire_core::wire::entry::SyncAuthorizedEntriesRequest;
use spire_core::wire::entry::entry_client::EntryClient;
use spire_core::wire::types::Entry;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::instances::Instances;
use super::writers::Entries;
use super::{Counts, Place, SERVERS, count};
use crate::load::{Agent, Node, Nodes, unix_channel};

/// How often an agent asks: SPIRE's agents ask every 5 s.
const ASKED_EVERY: Duration = Duration::from_secs(1);

/// How long an answer may take.
const CALL: Duration = Duration::from_secs(30);

/// How long the servers may take until each is in the bundle.
const BUNDLE: Duration = Duration::from_secs(30);

/// Agents with a channel to each server.
pub(super) struct Agents(Vec<(Agent, Vec<Channel>)>);

impl Agents {
    /// So many agents, each with a token of one server, attested at the next.
    pub(super) async fn attest(places: &[Place], count: usize) -> Result<Self> {
        let nodes = nodes(places).await?;
        let mut agents = Vec::with_capacity(count);
        for number in 0..count {
            let token = token(&places[number % SERVERS]).await?;
            let node = Node::new("join_token", token).await?;
            let agent = nodes[(number + 1) % SERVERS].attest(&node).await?;
            let channels = nodes.iter().map(|nodes| nodes.connect(&agent)).collect();
            agents.push((agent, channels));
        }
        Ok(Self(agents))
    }

    pub(super) fn ids(&self) -> Vec<SpiffeId> {
        self.0.iter().map(|(agent, _)| agent.id.clone()).collect()
    }

    /// One agent asks now this server and now that, until `stop` fires.
    pub(super) async fn ask(
        self: Arc<Self>,
        agent: usize,
        counts: Arc<Counts>,
        stop: CancellationToken,
    ) {
        for turn in agent.. {
            let server = turn % SERVERS;
            // Whether it is expected to answer, and how often servers were killed.
            let state = || {
                let runs = counts.runs[server].load(Ordering::Relaxed);
                (runs, counts.servers_killed.load(Ordering::Relaxed))
            };
            let before = state();
            let without = !counts.database_runs.load(Ordering::Relaxed);
            match self.entries(agent, server).await {
                Ok(_) => {
                    count(&counts.told);
                    if without && !counts.database_runs.load(Ordering::Relaxed) {
                        count(&counts.told_without_database);
                    }
                }
                Err(_) if before.0 && before == state() => count(&counts.not_told),
                Err(_) => {}
            }
            if stop.run_until_cancelled(sleep(ASKED_EVERY)).await.is_none() {
                return;
            }
        }
    }

    /// What a server tells an agent: the version of each entry by its id.
    async fn entries(&self, agent: usize, server: usize) -> Result<BTreeMap<String, i32>> {
        let mut client = EntryClient::new(self.0[agent].1[server].clone());
        let question = stream::iter([SyncAuthorizedEntriesRequest::default()]);
        let asked = async {
            let mut answers = client.sync_authorized_entries(question).await?.into_inner();
            let mut entries = BTreeMap::new();
            while let Some(answer) = answers.message().await? {
                ensure!(answer.entry_revisions.is_empty(), "too many entries for one answer");
                for told in answer.entries {
                    let entry = Entry::decode(told)?;
                    entries.insert(entry.id, entry.x509_svid_ttl);
                }
            }
            Ok(entries)
        };
        timeout(CALL, asked).await?
    }

    /// Waits until every server tells every agent exactly what is in `entries`.
    pub(super) async fn settle(&self, entries: &Entries) -> Result<()> {
        for (agent, (Agent { id, .. }, _)) in self.0.iter().enumerate() {
            let own = entries.iter().filter(|(_, (parent, _))| parent == id.path());
            let own: BTreeMap<_, _> = own.map(|(id, (_, ttl))| (id.clone(), *ttl)).collect();
            for server in 0..SERVERS {
                while self.entries(agent, server).await.ok().as_ref() != Some(&own) {
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
        Ok(())
    }
}

/// Tokens are made and instances launched in turn. Each token, and each instance's document, is
/// shown to all servers at once with another key.
pub(super) async fn race(
    places: Vec<Place>,
    instances: Arc<Instances>,
    counts: Arc<Counts>,
    stop: CancellationToken,
) -> Result<()> {
    let nodes = nodes(&places).await?;
    for turn in 0.. {
        if stop.run_until_cancelled(sleep(Duration::from_millis(300))).await.is_none() {
            return Ok(());
        }
        if turn % 2 == 1 {
            let admitted = show(&nodes, "aws_iid", instances.launch(turn)).await?;
            count(&counts.documents);
            counts.documents_admitted.fetch_add(admitted, Ordering::Relaxed);
            continue;
        }
        let made = timeout(CALL, token(&places[turn / 2 % SERVERS])).await;
        let Ok(Ok(token)) = made else { continue };
        let admitted = show(&nodes, "join_token", token).await?;
        count(&counts.tokens);
        counts.tokens_admitted.fetch_add(admitted, Ordering::Relaxed);
    }
    Ok(())
}

/// Shows evidence that may be used once to all servers, and returns how many have admitted it.
async fn show(nodes: &[Nodes], kind: &'static str, evidence: impl Into<Bytes>) -> Result<u64> {
    let evidence = evidence.into();
    let shown = nodes.iter().map(|nodes| async {
        let node = Node::new(kind, evidence.clone()).await?;
        timeout(CALL, nodes.attest(&node)).await?
    });
    let admitted = join_all(shown).await.into_iter().filter(Result::is_ok).count();
    ensure!(admitted <= 1, "one evidence of {kind} admitted {admitted}");
    Ok(admitted as u64)
}

async fn token(place: &Place) -> Result<String> {
    let request = CreateJoinTokenRequest { ttl: 600, ..CreateJoinTokenRequest::default() };
    let mut client = AgentClient::new(unix_channel(place.socket.clone()));
    Ok(client.create_join_token(request).await?.into_inner().value)
}

/// Nodes of each server, which know the authorities of all.
async fn nodes(places: &[Place]) -> Result<Vec<Nodes>> {
    let bundle = timeout(BUNDLE, bundle(&places[0])).await.context("not all are in the bundle")?;
    let nodes = places.iter().map(|place| {
        let (host, port) = (place.address.ip().to_string(), place.address.port());
        Nodes::at(ServerAddress { host, port }, bundle.clone())
    });
    Ok(nodes.collect())
}

async fn bundle(place: &Place) -> Bundle {
    let operator = unix_channel(place.socket.clone());
    loop {
        let channel = operator.clone();
        let bundle = Client::new(move || channel.clone()).bundle().await;
        match bundle {
            Ok(bundle) if bundle.x509_authorities.len() >= SERVERS => return bundle,
            // A server that was killed comes back.
            Ok(_) | Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}
