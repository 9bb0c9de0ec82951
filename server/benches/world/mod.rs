//! The services before a registry of one agent with its entries, and calls to them without a
//! connection.
#![allow(unreachable_pub, reason = "several benches use it")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use jiff::{SignedDuration, Timestamp};
use prost::Message;
use spire_core::bundle::Bundle;
use spire_core::clock::Clock;
use spire_core::entry::{Entry, EntryId};
use spire_core::grpc::Router;
use spire_core::id::{SpiffeId, TrustDomain};
use spire_core::keys::KeyType;
use spire_core::keys::memory::MemoryKeyManager;
use spire_core::selector::RequiredSelectors;
use spire_core::svid::x509::Subject;
use spire_core::tasks::Tasks;
use spire_core::telemetry::log::{LogSettings, Logger};
use spire_server::api::agent::AgentService;
use spire_server::api::gate::Gate;
use spire_server::api::{self, Parts};
use spire_server::attestation::Attestation;
use spire_server::authority::{self, Authority};
use spire_server::caller::{Caller, PeerSvid, RemotePeer};
use spire_server::policy::Policy;
use spire_server::rate_limit::{RateLimits, Switches};
use spire_server::registry::{Registry, Snapshot};
use spire_server::store::{Node, Revision, Settings, Store};
use tokio::sync::watch;
use tonic::body::Body;
use tower::Service;

fn domain() -> TrustDomain {
    TrustDomain::parse("example.org").expect("a trust domain")
}

fn id(path: &str) -> SpiffeId {
    domain().member(path).expect("a path")
}

fn agent_id() -> SpiffeId {
    id("/spire/agent/x509pop/0123456789abcdef")
}

pub fn entry(number: u32) -> Entry {
    let selectors = [format!("unix:uid:{number}"), format!("unix:path:/usr/bin/service-{number}")];
    Entry {
        id: EntryId::random(),
        spiffe_id: id(&format!("/ns/production/sa/service-{number}")),
        parent_id: agent_id(),
        selectors: RequiredSelectors::new(selectors.map(|text| text.parse().expect("a selector")))
            .expect("two selectors"),
        x509_svid_ttl: 3600,
        jwt_svid_ttl: 0,
        federates_with: BTreeSet::new(),
        dns_names: vec![format!("service-{number}.test").parse().expect("a name")],
        admin: false,
        downstream: false,
        store_svid: false,
        expires_at: None,
        hint: "".parse().expect("no hint"),
        revision_number: 1,
        created_at: Timestamp::now(),
        attributes: None,
    }
}

/// The services before a registry of one agent with its entries.
pub async fn services(entries: &[Entry], kind: KeyType) -> Gate<Router> {
    let (clock, tasks, trust_domain) = (Clock::system(), Tasks::new(), domain());
    let settings = Settings::new("sqlite3", ":memory:").expect("settings");
    let store = Store::open(&settings).await.expect("a database in memory");
    let hour = Duration::from_secs(3600);
    let settings = authority::Settings {
        trust_domain: trust_domain.clone(),
        ca_key_type: kind,
        jwt_key_type: kind,
        ca_subject: Subject::default(),
        ca_ttl: 24 * hour,
        default_x509_svid_ttl: hour,
        default_jwt_svid_ttl: hour,
        agent_ttl: hour,
        jwt_issuer: None,
        disable_jwt_svids: false,
        rotation_check_interval: hour,
    };
    let parts = authority::Parts {
        settings,
        store: store.clone(),
        keys: Arc::new(MemoryKeyManager::new()),
        upstream: None,
        bundle: watch::channel(Arc::new(Bundle::empty(trust_domain.clone()))).0,
        clock: clock.clone(),
    };
    let authority = Authority::start(parts, &tasks).await.expect("an authority");
    let node = Node {
        agent_id: agent_id(),
        attestation_type: "x509pop".to_owned(),
        serial: "1".to_owned(),
        expires_at: Timestamp::now() + SignedDuration::from_hours(1),
        new_serial: String::new(),
        new_expires_at: None,
        can_reattest: true,
        selectors: BTreeSet::new(),
        agent_version: String::new(),
    };
    let snapshot = Snapshot::of(&trust_domain, entries, &[node], Revision(1));
    let registry = Arc::new(Registry::showing(snapshot));
    let limits = Arc::new(RateLimits::new(Switches { attestation: false, signing: false }));
    let policy = Policy::new([], registry.clone(), store.clone(), clock.clone(), tasks.clone());
    let attestation = Attestation {
        trust_domain: trust_domain.clone(),
        attestors: ArcSwap::default(),
        authority: authority.clone(),
        store: store.clone(),
        registry: registry.clone(),
        id_as_selector: false,
        clock: clock.clone(),
    };
    api::services(Parts {
        trust_domain,
        store,
        registry,
        authority,
        limits: limits.clone(),
        policy: Arc::new(policy),
        agents: AgentService { attestation: Arc::new(attestation), limits },
        log: Logger::start(LogSettings::default()).expect("a log"),
        audited: false,
        clock,
        started: Instant::now(),
        stop: tasks.stop_token(),
    })
}

pub fn frame(message: &impl Message) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.encoded_len() as u32);
    message.encode(&mut frame).expect("room grows");
    frame.freeze()
}

/// Sends a message and reads the whole answer; returns its size.
pub async fn call(services: &mut Gate<Router>, path: &str, message: Bytes) -> usize {
    let mut request = http::Request::new(Body::new(Full::new(message)));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = path.parse().expect("a path");
    request.headers_mut().insert("content-type", "application/grpc".parse().expect("a type"));
    let svid = PeerSvid {
        id: agent_id(),
        serial: "1".into(),
        expires_at: Timestamp::now() + SignedDuration::from_hours(1),
    };
    let address = ([127, 0, 0, 1], 1).into();
    request.extensions_mut().insert(Caller::Remote(RemotePeer { address, svid: Some(svid) }));
    let response = services.call(request).await.expect("infallible");
    assert_eq!(response.headers().get("grpc-status"), None);
    response.into_body().collect().await.expect("an answer").to_bytes().len()
}
