//! Evidence of EC2 instances: the only instance that gets as far as a question about its ID is the
//! one whose genuine evidence is among the seeds.
#![no_main]

mod bound;

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use libfuzzer_sys::fuzz_target;
use spire_core::bundle::Bundle;
use spire_core::catalog::Host;
use spire_core::clock::Clock;
use spire_core::config::Section;
use spire_core::id::{SpiffeId, TrustDomain};
use spire_core::node::{AttestError, Examination, NodeAttestor, Peer};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_all().build().expect("a runtime"));

static PLUGIN: LazyLock<Arc<dyn NodeAttestor>> = LazyLock::new(|| {
    let trust_domain = TrustDomain::parse("example.org").expect("a name");
    let bundle = watch::Sender::new(Arc::new(Bundle::empty(trust_domain.clone()))).subscribe();
    let host = Host { trust_domain, bundle, clock: Clock::system() };
    (spire_provider_aws::server::PLUGIN.build)(&Section::default(), &host).expect("a plugin")
});

struct Stranger(Examination);

#[async_trait]
impl Peer for Stranger {
    async fn challenge(&mut self, _: Vec<u8>) -> Result<Option<Vec<u8>>, AttestError> {
        Ok(None)
    }

    async fn admit(&mut self, agent_id: &SpiffeId, _: bool) -> Result<(), AttestError> {
        let genuine = "/spire/agent/aws_iid/189292791360/ap-southeast-2/i-0c5541936caf78c12";
        assert_eq!(agent_id.path(), genuine);
        Err(AttestError::Refused("nobody is let in here".to_owned()))
    }

    fn address(&self) -> Option<IpAddr> {
        None
    }

    fn examination(&mut self) -> &mut Examination {
        &mut self.0
    }
}

fuzz_target!(|evidence: &[u8]| {
    bound::in_time(|| {
        let mut peer = Stranger(Examination::default());
        let verdict = RUNTIME.block_on(PLUGIN.verify(evidence, &mut peer));
        assert!(verdict.is_err());
    });
});
