//! What agents on Azure send: it is refused, soon and without harm, whatever it is.
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
use spire_fakes::azure::{APP, Azure, DOMAIN, SUBSCRIPTION, TENANT};
use spire_provider_azure::{imds, msi};
use tokio::runtime::Runtime;
use tokio::sync::watch;

struct Scene {
    runtime: Runtime,
    attestors: [Arc<dyn NodeAttestor>; 2],
    _azure: Azure,
}

static SCENE: LazyLock<Scene> = LazyLock::new(|| {
    let runtime = Runtime::new().unwrap();
    let azure = runtime.block_on(Azure::start());
    let trust_domain = TrustDomain::parse("example.org").unwrap();
    let (_, bundle) = watch::channel(Arc::new(Bundle::empty(trust_domain.clone())));
    let host = Host { trust_domain, bundle, clock: Clock::system() };
    let section =
        |tenant: &str| Section::parse(&(azure.server_endpoints_with_issuers() + tenant)).unwrap();
    let secret = format!("app_id = {APP:?}, app_secret = \"x\"");
    let tenant = format!("tenants = {{ {DOMAIN:?} = {{ secret_auth = {{ {secret} }} }} }}");
    let imds = (imds::server::PLUGIN.build)(&section(&tenant), &host).unwrap();
    let tenant =
        format!("tenants = {{ {TENANT:?} = {{ subscription_id = {SUBSCRIPTION:?}, {secret} }} }}");
    let msi = (msi::server::PLUGIN.build)(&section(&tenant), &host).unwrap();
    Scene { runtime, attestors: [imds, msi], _azure: azure }
});

/// Evidence that was written down.
struct Paper(Examination);

#[async_trait]
impl Peer for Paper {
    async fn challenge(&mut self, _: Vec<u8>) -> Result<Option<Vec<u8>>, AttestError> {
        Ok(None)
    }

    async fn admit(&mut self, _: &SpiffeId, _: bool) -> Result<(), AttestError> {
        panic!("evidence that nobody has signed names an agent")
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
        for attestor in &SCENE.attestors {
            let mut paper = Paper(Examination::default());
            let verified = SCENE.runtime.block_on(attestor.verify(evidence, &mut paper));
            assert!(verified.is_err());
        }
    });
});
