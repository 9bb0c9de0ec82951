//! What servers ask of a database when nothing changes.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use spire_core::clock::Clock;
use spire_core::tasks::Tasks;
use spire_server::caller::{Caller, PeerSvid, RemotePeer};
use spire_server::policy::{Grant, Policy, rule};
use spire_server::registry::Registry;
use spire_server::store::Store;
use tokio::time::{Instant, sleep};

use crate::{Fresh, Kind, at, attestation, domain, entry, id};

/// How often a server looks for changes: far more often than one of an operator.
const INTERVAL: Duration = Duration::from_millis(100);

const MEASURED: Duration = Duration::from_secs(3);

/// An agent asks what it may serve.
async fn ask((registry, policy): &(Arc<Registry>, Policy), path: &str) {
    let svid = PeerSvid { id: id(path), serial: "7".into(), expires_at: Timestamp::MAX };
    let address = "127.0.0.1:1".parse().unwrap();
    let caller = Caller::Remote(RemotePeer { address, svid: Some(svid) });
    let sync = rule("/spire.api.server.entry.v1.Entry/SyncAuthorizedEntries").unwrap();
    assert_eq!(policy.decide(sync, &caller).await, Ok(Grant::Agent));
    registry.snapshot().authorized(&id(path));
}

/// Two servers look in turn, one statement each time, whatever there is and however many agents ask.
#[tokio::test]
async fn the_load_does_not_grow_with_entries_and_agents() {
    let fresh = Fresh::new(Kind::Postgres).await;
    let other = Store::open(&fresh.settings).await.unwrap();
    let (clock, tasks) = (Clock::standing_at(at(1)), Tasks::new());
    let mut servers = Vec::new();
    for store in [&fresh.store, &other] {
        let (store, domain) = (store.clone(), domain("example.org"));
        let registry = Registry::follow(store.clone(), domain, clock.clone(), INTERVAL, &tasks);
        let registry = registry.await.unwrap();
        let policy = Policy::new([], registry.clone(), store, clock.clone(), tasks.clone());
        servers.push((registry, policy));
    }
    // A server tells the database only each second what it has done.
    let transactions = async || {
        let count = "SELECT xact_commit + xact_rollback FROM pg_stat_database \
                     WHERE datname = current_database()";
        fresh.database.number(count).await
    };
    for agents in [0, 50] {
        if agents > 0 {
            let many = (0..1000).map(|number| entry(&format!("{number}"), "/x", &["a:1"]));
            let distinct = many.enumerate().map(|(number, one)| spire_core::entry::Entry {
                spiffe_id: id(&format!("/{number}")),
                ..one
            });
            fresh.store.create_entries(distinct.collect()).await.unwrap();
        }
        for number in 0..agents {
            let agent = attestation(&format!("/spire/agent/{number}"), "7");
            fresh.store.record_attestation(agent, at(1)).await.unwrap();
        }
        let revision = fresh.store.latest_revision().await.unwrap();
        for (registry, _) in &servers {
            registry.wait_for(revision).await;
        }
        // The database tidies up too, after all that was written: that passes.
        let mut windows = 0;
        loop {
            sleep(Duration::from_secs(2)).await;
            let (before, begun) = (transactions().await, Instant::now());
            let mut asked = 0;
            while begun.elapsed() < MEASURED {
                for number in 0..agents {
                    ask(&servers[number % 2], &format!("/spire/agent/{number}")).await;
                    asked += 1;
                }
                sleep(INTERVAL).await;
            }
            let looks = 2 * begun.elapsed().as_millis() / INTERVAL.as_millis();
            let done = u128::try_from(transactions().await - before).unwrap();
            let told = format!("{done} transactions, {looks} looks, {asked} questions");
            assert!(agents == 0 || asked > 500, "{told}");
            assert!(done >= looks / 2, "{told}");
            windows += 1;
            // The test's own questions are among them.
            if done <= looks + 20 {
                break;
            }
            assert!(windows < 5, "{told}");
        }
    }
    assert!(tasks.drain(Duration::from_secs(10)).await);
}
