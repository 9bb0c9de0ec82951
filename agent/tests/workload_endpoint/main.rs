//! The SPIFFE Workload Endpoint and the Workload API over a real socket, row by row of the
//! standards.
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

mod bounds;
mod endpoint;
mod jwt;
mod node;
mod operators;
mod other_process;
mod x509;

use std::time::Duration;

use spire_core::wire::types;
use spire_core::wire::workload::{X509svidRequest, X509svidResponse};
use tonic::{Status, Streaming};

use node::{Client, call};

/// An entry for `spiffe://example.org<path>` that every caller on these nodes earns.
fn entry(path: &str) -> types::Entry {
    let id = |path: &str| {
        Some(types::Spiffeid { trust_domain: "example.org".into(), path: path.into() })
    };
    types::Entry {
        id: path.trim_start_matches('/').replace('/', "."),
        spiffe_id: id(path),
        parent_id: id("/spire/agent/x"),
        selectors: selectors(&["any"]),
        ..types::Entry::default()
    }
}

/// Selectors of type `test`.
fn selectors(values: &[&str]) -> Vec<types::Selector> {
    let selector =
        |value: &&str| types::Selector { r#type: "test".into(), value: (*value).to_owned() };
    values.iter().map(selector).collect()
}

fn federated_with(trust_domain: &str, entry: types::Entry) -> types::Entry {
    types::Entry { federates_with: vec![trust_domain.to_owned()], ..entry }
}

async fn x509_svids(client: &mut Client) -> Streaming<X509svidResponse> {
    client.fetch_x509svid(call(X509svidRequest {})).await.unwrap().into_inner()
}

/// The next message, which is due already.
async fn next<T>(answers: &mut Streaming<T>) -> Result<T, Status> {
    let answer = tokio::time::timeout(Duration::from_secs(10), answers.message());
    answer.await.expect("a message is due").map(|message| message.expect("the stream goes on"))
}

/// That the stream says nothing further, as far as waiting can tell.
async fn silent<T>(answers: &mut Streaming<T>) -> bool {
    tokio::time::timeout(Duration::from_millis(50), answers.message()).await.is_err()
}

fn ids(message: &X509svidResponse) -> Vec<&str> {
    message.svids.iter().map(|svid| svid.spiffe_id.as_str()).collect()
}
