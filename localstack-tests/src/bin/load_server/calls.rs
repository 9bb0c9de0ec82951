//! The calls that are counted.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures::stream;
use spire_core::keys::{KeyType, LocalKey};
use spire_core::svid::x509::agent_request;
use spire_core::wire::entry::entry_client::EntryClient;
use spire_core::wire::entry::{BatchCreateEntryRequest, SyncAuthorizedEntriesRequest};
use spire_core::wire::svid::svid_client::SvidClient;
use spire_core::wire::svid::{BatchNewX509svidRequest, NewJwtsvidRequest, NewX509svidParams};
use spire_core::wire::types;
use tonic::transport::Channel;

use spire_localstack_tests::load::Agent;

/// Entries in a call that creates them, and of an agent.
pub(crate) const BATCH: usize = 100;

/// How often a client asks that waits for an entry.
const ASKED_EVERY: Duration = Duration::from_millis(5);

/// The operator, and agents with what they may serve.
pub(crate) struct Calls {
    operator: Channel,
    agents: Vec<Agent>,
    /// The ids of the entries of each agent that has some.
    entry_ids: RefCell<Vec<Vec<String>>>,
    csr: Bytes,
}

impl Calls {
    /// No entries yet.
    pub(crate) async fn new(operator: Channel, agents: Vec<Agent>) -> Result<Self> {
        let csr = agent_request(&LocalKey::generate_blocking(KeyType::EcP256)?).await?;
        Ok(Self { operator, agents, entry_ids: RefCell::default(), csr })
    }

    /// Creates the entries of the next agent. One such call may be under way at a time.
    pub(crate) async fn create(&self) -> Result<()> {
        let number = self.entry_ids.borrow().len();
        let ids = self.create_entries(number, number * BATCH..(number + 1) * BATCH).await?;
        self.entry_ids.borrow_mut().push(ids);
        Ok(())
    }

    /// An agent asks what it may serve.
    pub(crate) async fn sync(&self, number: usize) -> Result<()> {
        let count = self.count_entries(number).await?;
        let expected = self.entry_ids.borrow().get(number).map_or(0, Vec::len);
        if count != expected {
            bail!("agent {number} was told of {count} entries, not of {expected}");
        }
        Ok(())
    }

    /// An agent has one X.509-SVID signed.
    pub(crate) async fn sign_x509(&self, number: usize) -> Result<()> {
        let (agent, entry_id) = self.agent_and_entry(number);
        let params = vec![NewX509svidParams { entry_id, csr: self.csr.clone() }];
        let mut client = SvidClient::new(agent.channel.clone());
        let answer = client.batch_new_x509svid(BatchNewX509svidRequest { params }).await?;
        let result = answer.into_inner().results.pop().context("no answer")?;
        result.svid.context("no SVID").map(drop)
    }

    /// An agent has one JWT-SVID signed.
    pub(crate) async fn sign_jwt(&self, number: usize) -> Result<()> {
        let (agent, entry_id) = self.agent_and_entry(number);
        let request = NewJwtsvidRequest { entry_id, audience: vec!["audience".to_owned()] };
        let answer = SvidClient::new(agent.channel.clone()).new_jwtsvid(request).await?;
        answer.into_inner().svid.context("no SVID").map(drop)
    }

    /// How long it takes from the begin of the call that creates an entry until an agent is told
    /// of it that asks again and again.
    pub(crate) async fn seen_after(&self, number: usize) -> Result<Duration> {
        let before = self.count_entries(0).await?;
        let created = async {
            // Between two questions, each time at another moment.
            tokio::time::sleep(Duration::from_millis(number as u64 % 5)).await;
            let begin = Instant::now();
            self.create_entries(0, number..number + 1).await?;
            anyhow::Ok(begin)
        };
        let seen = async {
            loop {
                let asked = tokio::time::Instant::now();
                if self.count_entries(0).await? > before {
                    return anyhow::Ok(Instant::now());
                }
                tokio::time::sleep_until(asked + ASKED_EVERY).await;
            }
        };
        let (begin, end) = futures::try_join!(created, seen)?;
        Ok(end - begin)
    }

    /// Agents and their entries in turn.
    fn agent_and_entry(&self, number: usize) -> (&Agent, String) {
        let entry_ids = self.entry_ids.borrow();
        let agent = number % entry_ids.len();
        let entries = &entry_ids[agent];
        (&self.agents[agent], entries[number / entry_ids.len() % entries.len()].clone())
    }

    async fn create_entries(
        &self,
        agent: usize,
        numbers: std::ops::Range<usize>,
    ) -> Result<Vec<String>> {
        let entries = numbers.map(|number| self.entry(agent, number)).collect();
        let request = BatchCreateEntryRequest { entries, output_mask: None };
        let answer = EntryClient::new(self.operator.clone()).batch_create_entry(request).await?;
        let results = answer.into_inner().results.into_iter();
        results.map(|result| Ok(result.entry.context("an entry was refused")?.id)).collect()
    }

    fn entry(&self, agent: usize, number: usize) -> types::Entry {
        let selectors = [format!("uid:{number}"), format!("path:/usr/bin/service-{number}")];
        types::Entry {
            spiffe_id: Some(types::Spiffeid {
                trust_domain: "example.org".to_owned(),
                path: format!("/ns/production/sa/service-{number}"),
            }),
            parent_id: Some((&self.agents[agent].id).into()),
            selectors: selectors
                .map(|value| types::Selector { r#type: "unix".to_owned(), value })
                .into(),
            x509_svid_ttl: 3600,
            ..types::Entry::default()
        }
    }

    async fn count_entries(&self, agent: usize) -> Result<usize> {
        let mut client = EntryClient::new(self.agents[agent].channel.clone());
        let question = stream::iter([SyncAuthorizedEntriesRequest::default()]);
        let mut answers = client.sync_authorized_entries(question).await?.into_inner();
        let mut count = 0;
        while let Some(answer) = answers.message().await? {
            count += answer.entries.len();
        }
        Ok(count)
    }
}
