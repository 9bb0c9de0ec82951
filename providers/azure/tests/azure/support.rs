//! A server's plugin, nodes of all kinds, and the Azure that both ask.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde_json::{Value, json};
use spire_core::bundle::Bundle;
use spire_core::catalog::{Host, Plugin};
use spire_core::clock::Clock;
use spire_core::config::Section;
use spire_core::id::{SpiffeId, TrustDomain};
use spire_core::node::{AttestError, Evidence, EvidenceSource, Examination, NodeAttestor, Peer};
use spire_fakes::azure::{
    APP, APP_SECRET, Azure, DOMAIN, Machine, Message, Names, PUBLIC, SUBSCRIPTION, TENANT,
};
use spire_provider_azure::{imds, msi};
use tokio::sync::watch;

pub(crate) fn host(clock: Clock) -> Host {
    let trust_domain = TrustDomain::parse("example.org").unwrap();
    let (_, bundle) = watch::channel(Arc::new(Bundle::empty(trust_domain.clone())));
    Host { trust_domain, bundle, clock }
}

/// The plugin with that section. It asks Azure at once, and must not keep the fakes from answering.
pub(crate) async fn build<T: ?Sized + Send + Sync + 'static>(
    plugin: &'static Plugin<T>,
    text: &str,
    clock: Clock,
) -> Result<Arc<T>, String> {
    let section = Section::parse(text).unwrap();
    let built = tokio::task::spawn_blocking(move || (plugin.build)(&section, &host(clock)));
    built.await.unwrap().map_err(|error| error.to_string())
}

static MSI: Plugin<dyn NodeAttestor> = msi::server::PLUGIN;
static MSI_AGENT: Plugin<dyn EvidenceSource> = msi::agent::PLUGIN;
static IMDS: Plugin<dyn NodeAttestor> = imds::server::PLUGIN;
static IMDS_AGENT: Plugin<dyn EvidenceSource> = imds::agent::PLUGIN;

pub(crate) async fn msi_server(text: &str, clock: Clock) -> Result<Arc<dyn NodeAttestor>, String> {
    build(&MSI, text, clock).await
}

pub(crate) async fn imds_server(text: &str, clock: Clock) -> Result<Arc<dyn NodeAttestor>, String> {
    build(&IMDS, text, clock).await
}

pub(crate) async fn msi_agent(azure: &Azure, machine: &Machine, more: &str) -> Box<dyn Evidence> {
    let text = azure.agent_endpoints(machine) + more;
    let agent = build(&MSI_AGENT, &text, Clock::system()).await.unwrap();
    agent.collect().await.unwrap()
}

pub(crate) async fn imds_agent(azure: &Azure, machine: &Machine) -> Box<dyn Evidence> {
    let text = azure.agent_endpoints(machine) + &format!("tenant_domain = {DOMAIN:?}");
    let agent = build(&IMDS_AGENT, &text, Clock::system()).await.unwrap();
    agent.collect().await.unwrap()
}

/// Why an agent of `azure_msi` with that section has no evidence.
pub(crate) async fn msi_refusal(text: &str) -> String {
    let agent = build(&MSI_AGENT, text, Clock::system()).await.unwrap();
    agent.collect().await.err().unwrap().to_string()
}

/// Why one of `azure_imds` cannot answer a nonce.
pub(crate) async fn imds_refusal(text: &str) -> String {
    let text = format!("tenant_domain = {DOMAIN:?}\n{text}");
    let agent = build(&IMDS_AGENT, &text, Clock::system()).await.unwrap();
    let mut evidence = agent.collect().await.unwrap();
    evidence.answer(b"nonce").await.unwrap_err().to_string()
}

/// Agents that are known, as the server has them.
#[derive(Clone, Default)]
pub(crate) struct Known(Arc<Mutex<HashSet<String>>>);

impl Known {
    pub(crate) fn add(&self, agent_id: &str) {
        self.0.lock().unwrap().insert(agent_id.to_owned());
    }
}

/// Makes an answer of a nonce.
type Maker = Box<dyn FnMut(&str) -> Vec<u8> + Send>;

/// What answers the server's challenge.
pub(crate) enum Answerer {
    /// The agent's half.
    Agent(Box<dyn Evidence>),
    /// Whatever is made of the nonce.
    Made(Maker),
    /// Nobody: the evidence was written down.
    Nobody,
    /// The stream ends.
    Gone,
}

/// A node at the other end.
pub(crate) struct Node {
    pub(crate) answerer: Answerer,
    pub(crate) known: Known,
    pub(crate) address: Option<IpAddr>,
    pub(crate) examination: Examination,
    pub(crate) nonces: Vec<String>,
    /// How often the attestor asked whether an agent may attest.
    pub(crate) asked: usize,
}

impl Node {
    pub(crate) fn new(answerer: Answerer) -> Self {
        let (known, examination) = (Known::default(), Examination::default());
        Self { answerer, known, address: None, examination, nonces: Vec::new(), asked: 0 }
    }

    pub(crate) fn agent(evidence: Box<dyn Evidence>) -> Self {
        Self::new(Answerer::Agent(evidence))
    }

    pub(crate) fn made(answer: impl FnMut(&str) -> Vec<u8> + Send + 'static) -> Self {
        Self::new(Answerer::Made(Box::new(answer)))
    }

    /// Attests, and resolves the selectors. Whatever stands in the way, a check is named for it.
    pub(crate) async fn attest(
        &mut self,
        server: &dyn NodeAttestor,
        evidence: &[u8],
    ) -> Result<(String, Vec<String>), AttestError> {
        let result = self.prove(server, evidence).await;
        if let Err(error) = &result
            && error.to_string() != "used before"
        {
            assert!(self.examination.failed().is_some(), "no check is named for: {error}");
        }
        result
    }

    async fn prove(
        &mut self,
        server: &dyn NodeAttestor,
        evidence: &[u8],
    ) -> Result<(String, Vec<String>), AttestError> {
        let attested = server.verify(evidence, self).await?;
        assert!(!attested.can_reattest);
        let selectors = attested.resolver.selectors(&mut self.examination).await?;
        self.known.add(attested.agent_id.as_str());
        let selectors = selectors.iter().map(ToString::to_string).collect();
        Ok((attested.agent_id.to_string(), selectors))
    }
}

#[async_trait]
impl Peer for Node {
    async fn challenge(&mut self, challenge: Vec<u8>) -> Result<Option<Vec<u8>>, AttestError> {
        let nonce = String::from_utf8(challenge).unwrap();
        self.nonces.push(nonce.clone());
        match &mut self.answerer {
            Answerer::Agent(evidence) => Ok(Some(evidence.answer(nonce.as_bytes()).await.unwrap())),
            Answerer::Made(make) => Ok(Some(make(&nonce))),
            Answerer::Nobody => Ok(None),
            Answerer::Gone => Err(AttestError::Malformed("the stream ended".to_owned())),
        }
    }

    async fn admit(&mut self, agent_id: &SpiffeId, can_reattest: bool) -> Result<(), AttestError> {
        assert!(!can_reattest);
        self.asked += 1;
        match self.known.0.lock().unwrap().contains(&agent_id.to_string()) {
            true => Err(AttestError::Refused("used before".to_owned())),
            false => Ok(()),
        }
    }

    fn address(&self) -> Option<IpAddr> {
        self.address
    }

    fn examination(&mut self) -> &mut Examination {
        &mut self.examination
    }
}

/// A tenant's block for `azure_msi` with the credentials of an application.
pub(crate) fn msi_tenant(more: &str) -> String {
    format!(
        "tenants = {{ {TENANT:?} = {{ subscription_id = {SUBSCRIPTION:?}, app_id = {APP:?}, \
         app_secret = {APP_SECRET:?} \n {more} }} }}\n"
    )
}

/// A tenant's block for `azure_imds`.
pub(crate) fn imds_tenant(domain: &str, more: &str) -> String {
    format!(
        "tenants = {{ {domain:?} = {{ secret_auth = {{ app_id = {APP:?}, app_secret = \
         {APP_SECRET:?} }} \n {more} }} }}\n"
    )
}

/// An Azure with one machine, and files for the server.
pub(crate) struct Scene {
    pub(crate) azure: Azure,
    pub(crate) machine: Machine,
    pub(crate) folder: tempfile::TempDir,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        Self::with(Machine::new("blog")).await
    }

    pub(crate) async fn with(machine: Machine) -> Self {
        Self::within(PUBLIC, machine).await
    }

    /// In the cloud of these names.
    pub(crate) async fn within(names: Names, machine: Machine) -> Self {
        let azure = Azure::start_as(names).await;
        let machine = azure.add_machine(machine);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("roots.pem"), azure.pki.root_pem()).unwrap();
        Self { azure, machine, folder }
    }

    pub(crate) fn trust(&self) -> String {
        format!("trust_bundle_path = {:?}\n", self.folder.path().join("roots.pem"))
    }

    /// `azure_imds` with one tenant, whose block gets `tenant`, and with `more`.
    pub(crate) async fn imds(&self, tenant: &str, more: &str) -> Arc<dyn NodeAttestor> {
        self.imds_at(Clock::system(), tenant, more).await
    }

    pub(crate) async fn imds_at(
        &self,
        clock: Clock,
        tenant: &str,
        more: &str,
    ) -> Arc<dyn NodeAttestor> {
        let text = self.azure.server_endpoints_with_issuers()
            + &self.trust()
            + &imds_tenant(DOMAIN, tenant)
            + more;
        imds_server(&text, clock).await.unwrap()
    }

    /// `azure_msi` with one tenant, whose block gets `tenant`, and with `more`.
    pub(crate) async fn msi(&self, tenant: &str, more: &str) -> Arc<dyn NodeAttestor> {
        self.msi_at(Clock::system(), tenant, more).await
    }

    pub(crate) async fn msi_at(
        &self,
        clock: Clock,
        tenant: &str,
        more: &str,
    ) -> Arc<dyn NodeAttestor> {
        let text = self.azure.server_endpoints() + &msi_tenant(tenant) + more;
        msi_server(&text, clock).await.unwrap()
    }

    /// What a genuine document about the machine says around `nonce`.
    pub(crate) fn content(&self, nonce: &str) -> Value {
        self.azure.document_content(&self.machine, nonce)
    }
}

/// An answer to a challenge with that document.
pub(crate) fn answer(signature: &str) -> Vec<u8> {
    answer_with(signature, DOMAIN, &Value::Null)
}

pub(crate) fn answer_with(signature: &str, domain: &str, set: &Value) -> Vec<u8> {
    let answer = json!({
        "document": { "encoding": "pkcs7", "signature": signature },
        "metadata": { "agentDomain": domain, "vmssName": set },
    });
    answer.to_string().into_bytes()
}

pub(crate) fn answer_of(message: &Message) -> Vec<u8> {
    answer(&message.base64())
}

/// The outcome as the list of attacks names it.
pub(crate) fn outcome<T>(result: &Result<T, AttestError>) -> &'static str {
    match result {
        Ok(_) => "A",
        Err(AttestError::Malformed(_)) => "IA",
        Err(AttestError::Refused(_)) => "PD",
        Err(AttestError::NotFound(_)) => "NF",
        Err(AttestError::Unavailable(_)) => "UNAV",
    }
}

#[track_caller]
pub(crate) fn assert_outcome<T>(result: Result<T, AttestError>, expected: &str, what: &str) {
    let error = result.as_ref().err().map(ToString::to_string);
    assert_eq!(outcome(&result), expected, "{what}: {error:?}");
}
