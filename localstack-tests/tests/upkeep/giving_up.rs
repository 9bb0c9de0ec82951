//! How long an agent tries before it gives up, and when it does so at once.

use std::pin::pin;
use std::time::Duration;

use futures::FutureExt;
use jiff::SignedDuration;
use spire_agent::app::AgentError;
use spire_fakes::log::Log;
use spire_localstack_tests::process::PATIENCE;

use super::ban;
use super::world::{By, Node, Setup, World};

/// What an agent says of an attestation that it will try again.
pub const FAILED: &str = "Failed to retrieve attestation result";
/// What an agent says of a first sync that it will try again.
const FAILED_SYNC: &str = "Failed to initialize manager";

/// Starts an agent. Each time that it logs `failure`, the wait that it announces passes, and no
/// more. Returns these waits, and how it ended.
pub async fn start_patiently(
    world: &World,
    log: &Log,
    failure: &str,
    by: By,
    setup: &Setup<'_>,
) -> (Vec<Duration>, Result<Node, AgentError>) {
    let mut waits = Vec::new();
    let mut starting = pin!(world.start_agent_of(by, setup));
    let until_it_ended = async {
        loop {
            if let Some(ended) = starting.as_mut().now_or_never() {
                return ended;
            }
            if let Some(line) = log.with(failure).get(waits.len()) {
                let wait = line.field("retry_interval").strip_suffix('s').unwrap().parse().unwrap();
                waits.push(Duration::from_secs_f64(wait));
                // What is written in seconds is rounded.
                let passes = SignedDuration::from_secs_f64(wait) + SignedDuration::from_millis(1);
                world.clock.advance(passes);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let ended = tokio::time::timeout(PATIENCE, until_it_ended).await;
    let ended = ended.expect("it begins or gives up in time");
    (waits, ended)
}

/// The waits begin with 5 s, each is half as long again as the last, a tenth more or less.
fn assert_grow(waits: &[Duration]) {
    let mut expected = 5.0;
    for wait in waits {
        let wait = wait.as_secs_f64();
        assert!((expected * 0.89..=expected * 1.11).contains(&wait), "{waits:?}");
        expected *= 1.5;
    }
}

#[tokio::test]
async fn an_agent_that_cannot_attest_gives_up_within_a_minute() {
    let mut world = World::start("").await;
    world.stop_server().await;
    let log = Log::read();
    let setup = Setup::default();
    let (waits, ended) = start_patiently(&world, &log, FAILED, By::Certificate, &setup).await;
    let error = ended.err().unwrap().to_string();
    assert!(error.contains("code = Unavailable"), "{error}");
    // 5, 7.5, 11.25 and 16.9 s; with the next 25 s it were more than a minute.
    assert_eq!(waits.len(), 4, "{waits:?}");
    assert_grow(&waits);
}

#[tokio::test]
async fn an_agent_that_may_bootstrap_again_tries_to_attest_for_a_day() {
    let mut world = World::start("").await;
    world.stop_server().await;
    let log = Log::read();
    let setup = Setup { settings: "rebootstrap_mode = \"auto\"", ..Setup::default() };
    let (waits, ended) = start_patiently(&world, &log, FAILED, By::Certificate, &setup).await;
    assert!(ended.is_err());
    assert_grow(&waits);
    let (tried, next) = (waits.iter().sum::<Duration>(), waits.last().unwrap().mul_f64(1.7));
    let day = Duration::from_hours(24);
    assert!(tried < day && tried + next > day, "{waits:?}");
}

#[tokio::test]
async fn an_attested_agent_gives_its_first_sync_a_minute() {
    let mut world = World::start("").await;
    let node = world.start_agent(By::Certificate, "").await.unwrap();
    let serial = node.serial();
    node.stop().await;
    world.stop_server().await;
    let log = Log::read();
    let setup = Setup::default();
    let (waits, ended) = start_patiently(&world, &log, FAILED_SYNC, By::Certificate, &setup).await;
    let error = ended.err().unwrap().to_string();
    assert!(error.starts_with("failed to fetch authorized entries: "), "{error}");
    assert_eq!(waits.len(), 4, "{waits:?}");
    assert_grow(&waits);

    world.start_server().await;
    let again = world.start_agent(By::Certificate, "").await.unwrap();
    assert_eq!(again.serial(), serial, "its SVID was good all the time");
    again.stop().await;
}

#[tokio::test]
async fn an_agent_that_is_denied_gives_up_at_once() {
    let world = World::start("").await;
    let node = world.start_agent(By::Certificate, "").await.unwrap();
    ban(&world, &node).await;
    node.storage().delete_svid().unwrap();
    node.stop().await;
    let log = Log::read();
    let setup = Setup::default();
    let (waits, ended) = start_patiently(&world, &log, FAILED, By::Certificate, &setup).await;
    let error = ended.err().unwrap().to_string();
    assert!(error.contains("agent is banned"), "{error}");
    assert!(waits.is_empty(), "{waits:?}");

    // So does one that is to bootstrap again some day, and could not.
    let setup = Setup { settings: "rebootstrap_mode = \"always\"", ..Setup::default() };
    let (waits, ended) = start_patiently(&world, &log, FAILED, By::Token, &setup).await;
    let error = ended.err().unwrap().to_string();
    assert!(error.starts_with("you have requested rebootstrap support but "), "{error}");
    assert!(waits.is_empty(), "{waits:?}");
}
