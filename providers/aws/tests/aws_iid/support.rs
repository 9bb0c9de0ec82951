//! A server's plugin in front of a small AWS, and a node that shows it evidence.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use jiff::Timestamp;
use spire_core::bundle::Bundle;
use spire_core::catalog::{Host, PluginError};
use spire_core::clock::Clock;
use spire_core::config::Section;
use spire_core::id::{SpiffeId, TrustDomain};
use spire_core::node::{AttestError, Examination, NodeAttestor, Outcome, Peer};
use spire_fakes::aws::{Aws, HOME_ACCOUNT, Instance, RegionSigner};
use tempfile::TempDir;
use tokio::sync::watch;

pub(crate) const REGION: &str = "us-west-2";
/// Regions of other partitions, whose key is the same here.
pub(crate) const ELSEWHERE: [&str; 3] = ["cn-north-1", "us-gov-west-1", "eusc-de-east-1"];
pub(crate) const ID: &str = "i-0b22a22eec53b9321";

/// The region's keys, made once.
pub(crate) static SIGNER: LazyLock<RegionSigner> = LazyLock::new(|| RegionSigner::new(REGION));

/// A plugin of the server, its AWS, and the folder with the keys that it trusts.
pub(crate) struct Setup {
    pub(crate) aws: Aws,
    pub(crate) clock: Clock,
    pub(crate) plugin: Arc<dyn NodeAttestor>,
    _folder: TempDir,
}

/// What became of a node.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// Its ID and its selectors' values, in order.
    pub(crate) result: Result<(String, Vec<String>), AttestError>,
    pub(crate) examination: Examination,
    /// For which IDs the server was asked whether they may attest.
    pub(crate) admitted: Vec<String>,
}

impl Setup {
    /// With `config` beside what every configuration here has, and an AWS with the one instance
    /// that tests are about.
    pub(crate) async fn new(config: &str) -> Self {
        let aws = Aws::start().await;
        aws.world().instances.push(instance());
        Self::at(aws, config).unwrap()
    }

    pub(crate) fn at(aws: Aws, config: &str) -> Result<Self, PluginError> {
        let folder = TempDir::new().unwrap();
        for region in [&[REGION][..], &ELSEWHERE].concat() {
            std::fs::write(folder.path().join(format!("{region}.pem")), SIGNER.pem()).unwrap();
        }
        let text = format!(
            "access_key_id = \"AKIAFAKE\"\nsecret_access_key = \"secret\"\n\
             certificates_dir = {:?}\n{}\n{config}",
            folder.path(),
            aws.endpoints()
        );
        let clock = Clock::standing_at("2026-02-16T01:00:00Z".parse().unwrap());
        let plugin = build(&text, &clock)?;
        Ok(Self { aws, clock, plugin, _folder: folder })
    }

    /// Shows `payload` on behalf of a node that is not known yet.
    pub(crate) async fn show(&self, payload: &[u8]) -> Verdict {
        show(&*self.plugin, payload, true).await
    }

    /// Shows the genuine evidence of the instance.
    pub(crate) async fn attest(&self) -> Verdict {
        self.show(&genuine()).await
    }

    /// Changes the instance in AWS; its document stays.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Instance)) {
        change(&mut self.aws.world().instances[0]);
    }
}

/// A plugin that is configured by `text` alone.
pub(crate) fn build(text: &str, clock: &Clock) -> Result<Arc<dyn NodeAttestor>, PluginError> {
    (spire_provider_aws::server::PLUGIN.build)(&Section::parse(text).unwrap(), &host(clock))
}

pub(crate) fn host(clock: &Clock) -> Host {
    let trust_domain = TrustDomain::parse("example.org").unwrap();
    let bundle = Arc::new(Bundle::empty(trust_domain.clone()));
    Host { trust_domain, bundle: watch::Sender::new(bundle).subscribe(), clock: clock.clone() }
}

/// The instance that tests are about.
pub(crate) fn instance() -> Instance {
    Instance::new(HOME_ACCOUNT, REGION, ID)
}

/// Its evidence.
pub(crate) fn genuine() -> Vec<u8> {
    SIGNER.evidence(&instance(), false).payload()
}

pub(crate) async fn show(plugin: &dyn NodeAttestor, payload: &[u8], admits: bool) -> Verdict {
    let mut peer = Node { examination: Examination::default(), admitted: Vec::new(), admits };
    let attested = plugin.verify(payload, &mut peer).await;
    let Node { mut examination, admitted, .. } = peer;
    let result = match attested {
        Ok(attested) => {
            assert!(!attested.can_reattest, "evidence that can be replayed counts once");
            let selectors = attested.resolver.selectors(&mut examination).await;
            selectors.map(|selectors| {
                assert!(selectors.iter().all(|selector| selector.kind() == "aws_iid"));
                let values = selectors.iter().map(|selector| selector.value().to_owned());
                (attested.agent_id.to_string(), values.collect())
            })
        }
        Err(error) => Err(error),
    };
    Verdict { result, examination, admitted }
}

struct Node {
    examination: Examination,
    admitted: Vec<String>,
    admits: bool,
}

#[async_trait]
impl Peer for Node {
    async fn challenge(&mut self, _: Vec<u8>) -> Result<Option<Vec<u8>>, AttestError> {
        panic!("aws_iid knows no challenges");
    }

    async fn admit(&mut self, agent_id: &SpiffeId, can_reattest: bool) -> Result<(), AttestError> {
        assert!(!can_reattest);
        self.admitted.push(agent_id.to_string());
        match self.admits {
            true => Ok(()),
            false => Err(AttestError::Refused("used before".to_owned())),
        }
    }

    fn address(&self) -> Option<IpAddr> {
        None
    }

    fn examination(&mut self) -> &mut Examination {
        &mut self.examination
    }
}

impl Verdict {
    /// The node became an agent; its selectors.
    #[track_caller]
    pub(crate) fn accepted(self) -> Vec<String> {
        let (_, selectors) = self.result.unwrap();
        assert_eq!(self.examination.failed(), None);
        selectors
    }

    /// InvalidArgument.
    #[track_caller]
    pub(crate) fn malformed(self) -> String {
        match &self.result {
            Err(AttestError::Malformed(why)) => self.failed(why),
            other => panic!("not malformed: {other:?}"),
        }
    }

    /// PermissionDenied.
    #[track_caller]
    pub(crate) fn refused(self) -> String {
        match &self.result {
            Err(AttestError::Refused(why)) => self.failed(why),
            other => panic!("not refused: {other:?}"),
        }
    }

    /// Unavailable.
    #[track_caller]
    pub(crate) fn unavailable(self) -> String {
        match &self.result {
            Err(AttestError::Unavailable(why)) => self.failed(why),
            other => panic!("not unavailable: {other:?}"),
        }
    }

    /// The log will name the request that AWS answered last.
    #[track_caller]
    pub(crate) fn names_a_request(&self) {
        let id = self.examination.cloud_request_id.as_deref().unwrap_or_default();
        assert!(id.starts_with("fake-"), "{:?}", self.examination);
    }

    /// The reason, which is that of the check that failed.
    #[track_caller]
    fn failed(&self, why: &str) -> String {
        let failed = self.examination.failed().map(|check| check.outcome.clone());
        if why != "used before" {
            assert_eq!(failed, Some(Outcome::Failed(why.to_owned())));
        }
        why.to_owned()
    }
}

/// A time that is not far from that of the instance's launch.
pub(crate) fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}
