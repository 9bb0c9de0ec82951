//! Several servers on one database, both going away and coming back.
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

use std::time::Duration;

use spire_localstack_tests::reliability::{Plan, run};
use spire_test_databases::Engine;

/// One database after the other: the machine is theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_stays_whatever_goes_away() {
    for engine in [Engine::Postgres, Engine::MariaDb] {
        let plan = Plan {
            engine,
            agents: 40,
            duration: Duration::from_secs(60),
            outage: Duration::from_secs(4),
        };
        println!("{}", run(&plan).await.unwrap());
    }
}
