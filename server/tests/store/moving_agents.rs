//! Agents that go from one server to another: what another server wrote a moment ago counts.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use spire_core::clock::Clock;
use spire_core::entry::Entry;
use spire_core::selector::RequiredSelectors;
use spire_core::tasks::Tasks;
use spire_core::wire::convert::denial::Reason;
use spire_server::caller::{Caller, PeerSvid, RemotePeer};
use spire_server::policy::{Denied, Grant, Policy, Rule, rule};
use spire_server::registry::{Registry, Snapshot};
use spire_server::store::{Revision, Store};
use tonic::{Code, Status};

use crate::{Fresh, Kind, at, attestation, domain, each_database, entry, id, selectors};

each_database! {
    an_agent_that_moves_finds_all_that_was_written_before,
}

const AGENT: &str = "/spire/agent/a";

fn sync() -> &'static Rule {
    rule("/spire.api.server.entry.v1.Entry/SyncAuthorizedEntries").unwrap()
}

fn agent(serial: &str) -> Caller {
    let svid = PeerSvid { id: id(AGENT), serial: serial.into(), expires_at: Timestamp::MAX };
    Caller::Remote(RemotePeer { address: "127.0.0.1:1".parse().unwrap(), svid: Some(svid) })
}

fn policy(registry: &Arc<Registry>, store: &Store, clock: &Clock, tasks: &Tasks) -> Policy {
    Policy::new([], registry.clone(), store.clone(), clock.clone(), tasks.clone())
}

/// A registry without anything, which follows no store.
fn idle() -> Arc<Registry> {
    let nothing = Snapshot::of(&domain("example.org"), &[], &[], Revision(0));
    Arc::new(Registry::showing(nothing))
}

async fn an_agent_that_moves_finds_all_that_was_written_before(kind: Kind) {
    let here = Fresh::new(kind).await;
    let there = Store::open(&here.settings).await.unwrap();
    let (clock, tasks) = (Clock::standing_at(at(1)), Tasks::new());
    // It does not look by itself within this test.
    let interval = Duration::from_hours(1);
    let store = here.store.clone();
    let registry = Registry::follow(store, domain("example.org"), clock.clone(), interval, &tasks);
    let registry = registry.await.unwrap();

    let alias = Entry {
        parent_id: id("/spire/server"),
        selectors: RequiredSelectors::new(selectors(&["x509pop:ca:two"])).unwrap(),
        ..entry("alias", "/group", &["a:1"])
    };
    let below_alias = Entry { parent_id: id("/group"), ..entry("below", "/below", &["a:1"]) };
    let own = entry("own", "/own", &["a:1"]);
    for created in there.create_entries(vec![alias, below_alias, own]).await.unwrap() {
        created.unwrap();
    }
    there.record_attestation(attestation(AGENT, "7"), at(1)).await.unwrap();
    let policy = policy(&registry, &here.store, &clock, &tasks);
    assert_eq!(policy.decide(sync(), &agent("7")).await, Ok(Grant::Agent));
    let snapshot = registry.snapshot();
    let authorized = snapshot.authorized(&id(AGENT)).into_iter();
    let authorized: BTreeSet<_> = authorized.map(|entry| entry.id().to_string()).collect();
    assert_eq!(authorized, ["below", "own"].map(str::to_owned).into());

    // There was another entry, and then the node attested there again.
    there.create_entries(vec![entry("late", "/late", &["a:1"])]).await.unwrap();
    there.record_attestation(attestation(AGENT, "8"), at(1)).await.unwrap();
    assert_eq!(policy.decide(sync(), &agent("8")).await, Ok(Grant::Agent));
    assert_eq!(registry.snapshot().authorized(&id(AGENT)).len(), 3);
    there.close().await;
    assert!(tasks.drain(Duration::from_secs(10)).await);
}

#[tokio::test]
async fn an_agent_that_memory_does_not_learn_of_is_to_try_again() {
    let Fresh { store, database: _database, .. } = Fresh::new(Kind::Sqlite).await;
    store.record_attestation(attestation(AGENT, "7"), at(1)).await.unwrap();
    let policy = policy(&idle(), &store, &Clock::standing_at(at(1)), &Tasks::new());
    let denied = policy.decide(sync(), &agent("7")).await.unwrap_err();
    assert_eq!(denied, Denied::Behind);
    assert_eq!(Status::from(denied).code(), Code::Unavailable);
}

#[tokio::test]
async fn who_was_refused_a_moment_ago_is_refused_without_the_database() {
    let Fresh { store, database: _database, .. } = Fresh::new(Kind::Sqlite).await;
    let clock = Clock::standing_at(at(1));
    let policy = policy(&idle(), &store, &clock, &Tasks::new());
    let decide = async |serial| policy.decide(sync(), &agent(serial)).await.unwrap_err();
    let refused = Denied::Agent { path: sync().path(), reason: Reason::AgentNotAttested };
    assert_eq!(decide("7").await, refused);
    store.close().await;
    clock.advance(SignedDuration::from_secs(4));
    assert_eq!(decide("7").await, refused);
    let asked = decide("8").await;
    assert!(matches!(asked, Denied::Store(_)), "another SVID: {asked:?}");
    clock.advance(SignedDuration::from_secs(1));
    let asked = decide("7").await;
    assert!(matches!(asked, Denied::Store(_)), "it is long ago: {asked:?}");
}
