//! What callers may take, and that no one of them keeps others from being served.

use std::path::Path;
use std::time::Duration;

use futures::future::join_all;
use spire_agent::config::RateLimitsConfig;
use spire_core::limits::MAX_WORKLOAD_REQUEST_BYTES;
use spire_core::wire::workload::{ValidateJwtsvidRequest, X509BundlesRequest, X509svidRequest};
use tonic::transport::Endpoint;
use tonic::{Code, Status};

use super::node::{Client, Node, call};
use super::other_process::OtherProcess;
use super::{entry, ids, next, silent, x509_svids};

/// Calls that one process may have under way, and that fit on one connection.
const CALLS: usize = 2048;
const CALLS_OF_CONNECTION: usize = 256;

async fn fetch(mut client: Client) -> Result<(), Status> {
    let mut answers = client.fetch_x509svid(call(X509svidRequest {})).await?.into_inner();
    next(&mut answers).await.map(drop)
}

#[tokio::test]
async fn calls_beyond_the_rate_are_refused_and_the_agents_own_are_not_counted() {
    let node = Node::start_with(|parts| {
        parts.ratelimit = RateLimitsConfig { fetch_x509_svid: 1, ..RateLimitsConfig::default() };
    })
    .await;
    node.authorize([entry("/w")]).await;
    let other = OtherProcess::calling(&node.socket);
    let mut client = Client::new(other.channel().await);
    let results = join_all((0..20).map(|_| fetch(client.clone()))).await;
    let (served, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert!(!served.is_empty() && !refused.is_empty());
    for status in refused.into_iter().filter_map(Result::err) {
        let expected = (Code::Unavailable, "rate limit exceeded for FetchX509SVID");
        assert_eq!((status.code(), status.message()), expected);
    }
    let of_another_method = client.fetch_x509_bundles(call(X509BundlesRequest {})).await;
    next(&mut of_another_method.unwrap().into_inner()).await.unwrap();

    let own = node.client().await; // this process is the agent
    let results = join_all((0..20).map(|_| fetch(own.clone()))).await;
    assert!(results.iter().all(Result::is_ok));
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_nobody_and_skips_what_it_missed() {
    let node = Node::start().await;
    // One message is about as large as what is kept of an answer that nobody reads.
    node.authorize((0..100).map(|number| entry(&format!("/{number}")))).await;
    let address = format!("unix://{}", node.socket.display());
    let small = Endpoint::from_shared(address).unwrap().initial_stream_window_size(1024);
    let mut slow = x509_svids(&mut Client::new(small.connect().await.unwrap())).await;
    let mut quick = x509_svids(&mut node.client().await).await;
    let first = next(&mut quick).await.unwrap();
    let mut last = first.clone();
    for _ in 0..10 {
        node.renew("/0").await;
        last = next(&mut quick).await.unwrap();
    }
    assert_ne!(first, last);
    let mut read = vec![next(&mut slow).await.unwrap()];
    assert_eq!(read[0], first);
    while read.last() != Some(&last) {
        read.push(next(&mut slow).await.unwrap());
    }
    assert!(read.len() < 5, "{} of 11 messages were kept", read.len());
    assert!(silent(&mut slow).await);
}

#[tokio::test]
async fn one_process_holds_so_many_streams_and_no_more_while_others_are_served() {
    let node = Node::start().await;
    node.authorize([entry("/w")]).await;
    let mut held = Vec::new();
    for _ in 0..CALLS / CALLS_OF_CONNECTION {
        let client = node.client().await;
        let streams = (0..CALLS_OF_CONNECTION).map(|_| {
            let mut client = client.clone();
            async move { x509_svids(&mut client).await }
        });
        held.extend(join_all(streams).await);
    }
    let client = node.client().await;
    let status = fetch(client.clone()).await.unwrap_err();
    let expected = (Code::Unavailable, "too many calls are under way; try again later");
    assert_eq!((status.code(), status.message()), expected);

    let other = OtherProcess::calling(&node.socket);
    let mut answers = x509_svids(&mut Client::new(other.channel().await)).await;
    assert_eq!(ids(&next(&mut answers).await.unwrap()), ["spiffe://example.org/w"]);

    drop(held);
    let served_again = async { while fetch(client.clone()).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(10), served_again).await.expect("places come back");
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused_and_the_connection_goes_on() {
    let node = Node::start().await;
    node.authorize([entry("/w")]).await;
    let mut client = node.client().await;
    let svid = "x".repeat(MAX_WORKLOAD_REQUEST_BYTES);
    let request = ValidateJwtsvidRequest { audience: "a".into(), svid };
    let status = client.validate_jwtsvid(call(request)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    let expected = "grpc: received message larger than max (";
    assert!(status.message().starts_with(expected), "{status}");
    fetch(client).await.unwrap();
}

#[tokio::test]
async fn streams_end_when_the_agent_stops_and_the_socket_goes() {
    let node = Node::start().await;
    node.authorize([entry("/w")]).await;
    let mut client = node.client().await;
    let mut svids = x509_svids(&mut client).await;
    next(&mut svids).await.unwrap();
    let bundles = client.fetch_x509_bundles(call(X509BundlesRequest {})).await;
    let mut bundles = bundles.unwrap().into_inner();
    next(&mut bundles).await.unwrap();

    node.tasks.stop();
    let ends = [next(&mut svids).await.map(drop), next(&mut bundles).await.map(drop)];
    for status in ends.map(Result::unwrap_err) {
        let expected = (Code::Unavailable, "the agent is stopping");
        assert_eq!((status.code(), status.message()), expected);
    }
    assert!(node.tasks.drain(Duration::from_secs(10)).await, "nothing goes on");
    assert!(!Path::new(&node.socket).exists());
}
