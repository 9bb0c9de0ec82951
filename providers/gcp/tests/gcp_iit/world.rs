//! A cloud, a server's attestor in it, and nodes that apply.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Map, Value};
use spire_core::bundle::Bundle;
use spire_core::catalog::Host;
use spire_core::clock::Clock;
use spire_core::config::Section;
use spire_core::id::{SpiffeId, TrustDomain};
use spire_core::node::{AttestError, EvidenceSource, Examination, NodeAttestor, Peer};
use spire_fakes::gcp::{AUDIENCE, Google, Vm};
use tokio::sync::watch;

/// A cloud with one instance. The clock stands at the time when it began.
pub(crate) struct World {
    pub(crate) google: Google,
    pub(crate) vm: Vm,
    pub(crate) clock: Clock,
    pub(crate) now: u64,
}

impl World {
    pub(crate) async fn new() -> Self {
        let now = spire_fakes::gcp::now();
        let clock = Clock::standing_at(Timestamp::from_second(now.try_into().unwrap()).unwrap());
        let vm = Vm::new("blog-server", 7_152_993_111_222_333_444);
        let google = Google::start().await;
        google.compute.add(&vm);
        Self { google, vm, clock, now }
    }

    /// A server that takes the instance's project.
    pub(crate) fn server(&self, more: &str) -> Arc<dyn NodeAttestor> {
        self.server_of(&format!("projectid_allow_list = [\"{}\"]\n{more}", self.vm.project_id))
    }

    pub(crate) fn server_of(&self, text: &str) -> Arc<dyn NodeAttestor> {
        let text = format!("{text}\n{}", self.google.server_endpoints());
        let section = Section::parse(&text).unwrap();
        (spire_provider_gcp::server::PLUGIN.build)(&section, &host(&self.clock)).unwrap()
    }

    /// What a good token claims.
    pub(crate) fn claims(&self) -> Value {
        self.vm.claims(AUDIENCE, self.now)
    }

    /// What a good token claims, with one member changed, or gone where it becomes null.
    pub(crate) fn with(&self, pointer: &str, value: Value) -> Value {
        let mut claims = self.claims();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let parent = claims.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        set(parent, name, value);
        claims
    }

    pub(crate) fn token(&self, claims: &Value) -> String {
        self.google.key.token(claims)
    }

    /// Attests a token that claims this.
    pub(crate) async fn attest(&self, server: &dyn NodeAttestor, claims: &Value) -> Verdict {
        attest(server, self.token(claims).as_bytes()).await
    }
}

fn set(parent: &mut Map<String, Value>, name: &str, value: Value) {
    match value {
        Value::Null => drop(parent.remove(name)),
        value => drop(parent.insert(name.to_owned(), value)),
    }
}

pub(crate) fn host(clock: &Clock) -> Host {
    let trust_domain = TrustDomain::parse("example.org").unwrap();
    let (_, bundle) = watch::channel(Arc::new(Bundle::empty(trust_domain.clone())));
    Host { trust_domain, bundle, clock: clock.clone() }
}

pub(crate) fn agent(text: &str) -> Arc<dyn EvidenceSource> {
    let section = Section::parse(text).unwrap();
    (spire_provider_gcp::agent::PLUGIN.build)(&section, &host(&Clock::system())).unwrap()
}

/// A node that applies, and what the server already knows.
#[derive(Default)]
pub(crate) struct Applicant {
    pub(crate) used: HashSet<String>,
    pub(crate) examination: Examination,
}

#[async_trait]
impl Peer for Applicant {
    async fn challenge(&mut self, _: Vec<u8>) -> Result<Option<Vec<u8>>, AttestError> {
        panic!("this scheme has no challenges");
    }

    async fn admit(&mut self, agent_id: &SpiffeId, can_reattest: bool) -> Result<(), AttestError> {
        assert!(!can_reattest);
        match self.used.contains(agent_id.as_str()) {
            true => Err(AttestError::Refused("used before".to_owned())),
            false => Ok(()),
        }
    }

    fn address(&self) -> Option<IpAddr> {
        None
    }

    fn examination(&mut self) -> &mut Examination {
        &mut self.examination
    }
}

/// What became of an attestation.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) result: Result<Found, AttestError>,
    pub(crate) examination: Examination,
}

#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) agent_id: String,
    pub(crate) selectors: Vec<String>,
}

/// The outcomes that the cases name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Accepted,
    InvalidArgument,
    PermissionDenied,
    NotFound,
    Unavailable,
}

impl Verdict {
    pub(crate) fn outcome(&self) -> Outcome {
        match &self.result {
            Ok(_) => Outcome::Accepted,
            Err(AttestError::Malformed(_)) => Outcome::InvalidArgument,
            Err(AttestError::Refused(_)) => Outcome::PermissionDenied,
            Err(AttestError::NotFound(_)) => Outcome::NotFound,
            Err(AttestError::Unavailable(_)) => Outcome::Unavailable,
        }
    }

    /// Fails unless that is what became of it.
    pub(crate) fn is(&self, expected: Outcome, case: &str) {
        assert_eq!(self.outcome(), expected, "{case}: {:?}", self.result);
        let failed = self.examination.failed();
        assert_eq!(failed.is_some(), self.result.is_err(), "{case}: {:?}", self.examination);
    }

    pub(crate) fn found(self) -> Found {
        self.result.unwrap()
    }

    pub(crate) fn error(&self) -> String {
        self.result.as_ref().unwrap_err().to_string()
    }

    /// The name of the check that failed.
    pub(crate) fn failed(&self) -> &'static str {
        self.examination.failed().unwrap().name
    }
}

pub(crate) async fn attest(server: &dyn NodeAttestor, evidence: &[u8]) -> Verdict {
    attest_as(server, evidence, Applicant::default()).await
}

pub(crate) async fn attest_as(
    server: &dyn NodeAttestor,
    evidence: &[u8],
    mut applicant: Applicant,
) -> Verdict {
    let result = match server.verify(evidence, &mut applicant).await {
        Ok(node) => {
            assert!(!node.can_reattest);
            let selectors = node.resolver.selectors(&mut applicant.examination).await;
            selectors.map(|selectors| Found {
                agent_id: node.agent_id.to_string(),
                selectors: selectors.iter().map(|one| one.value().to_owned()).collect(),
            })
        }
        Err(error) => Err(error),
    };
    Verdict { result, examination: applicant.examination }
}
