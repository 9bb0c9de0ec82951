//! The services over real sockets, against a whole server with a real database.
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

#[path = "../harness/mod.rs"]
mod harness;

mod audit;
mod bundles;
mod entries;
mod local;
mod malformed;
mod policy;
mod svids;
mod sync;

use harness::{TestAgent, TestServer};
use spire_core::tls::Identity;
use spire_core::wire::entry::batch_create_entry_response::Result as Created;
use spire_core::wire::entry::entry_client::EntryClient;
use spire_core::wire::entry::*;
use spire_core::wire::types;
use tonic::transport::Channel;
use tonic::{Code, Status};

const TOKEN: &str = "a-token";
const AGENT: &str = "/spire/agent/join_token/a-token";

/// A server without limits on rates, and with the audit log, whose lines every test so writes.
async fn server() -> TestServer {
    TestServer::start(
        "audit_log_enabled = true
         ratelimit {
             attestation = false
             signing = false
         }",
    )
    .await
}

async fn agent(server: &TestServer) -> Identity {
    server.create_token(TOKEN, 600).await;
    TestAgent::new().attest(server, "join_token", TOKEN).await.unwrap()
}

fn id(path: &str) -> Option<types::Spiffeid> {
    Some(types::Spiffeid { trust_domain: "example.org".into(), path: path.into() })
}

fn selector(kind: &str, value: &str) -> types::Selector {
    types::Selector { r#type: kind.into(), value: value.into() }
}

/// An entry of the agent, for the user with this number.
fn entry(path: &str, uid: usize) -> types::Entry {
    types::Entry {
        spiffe_id: id(path),
        parent_id: id(AGENT),
        selectors: vec![selector("unix", &format!("uid:{uid}"))],
        ..types::Entry::default()
    }
}

async fn entries(server: &TestServer) -> EntryClient<Channel> {
    EntryClient::new(server.operator().await)
}

async fn create(
    client: &mut EntryClient<Channel>,
    entries: impl IntoIterator<Item = types::Entry>,
) -> Vec<Created> {
    let entries = entries.into_iter().collect();
    let request = BatchCreateEntryRequest { entries, output_mask: None };
    client.batch_create_entry(request).await.unwrap().into_inner().results
}

/// Creates one entry, which must go well, and returns it as it is stored.
async fn created(client: &mut EntryClient<Channel>, entry: types::Entry) -> types::Entry {
    let result = create(client, [entry]).await.remove(0);
    assert_eq!(said(result.status), (Code::Ok, "OK".to_owned()));
    result.entry.unwrap()
}

fn said(status: Option<types::Status>) -> (Code, String) {
    let status = status.unwrap();
    (status.code.into(), status.message)
}

fn refused<T: std::fmt::Debug>(result: Result<T, Status>) -> (Code, String) {
    let status = result.unwrap_err();
    (status.code(), status.message().to_owned())
}
