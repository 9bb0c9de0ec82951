//! Every method, called by every class of callers.

use spire_core::id::TrustDomain;
use spire_core::keys::{KeyType, LocalKey};
use spire_core::svid::x509::{X509Svid, workload_request};
use spire_core::tls::Identity;
use spire_core::wire::bundle::bundle_client::BundleClient;
use spire_core::wire::bundle::{
    BatchDeleteFederatedBundleRequest, BatchSetFederatedBundleRequest, GetBundleRequest,
};
use spire_core::wire::convert::bundle::sent;
use spire_core::wire::convert::denial::{self, Reason};
use spire_core::wire::svid::MintX509svidRequest;
use spire_core::wire::svid::svid_client::SvidClient;
use spire_server::policy::{Class, RULES, Rule};
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::*;

/// Sends an empty request, and returns how the call ends, or that it was answered.
async fn call(channel: &Channel, rule: &Rule) -> Result<(), Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let path = rule.path().parse().unwrap();
    let codec = ProstCodec::<(), ()>::default();
    let mut answers = grpc.server_streaming(Request::new(()), path, codec).await?.into_inner();
    answers.message().await.map(drop)
}

/// A workload of the trust domain with an SVID that an operator made.
async fn workload(server: &TestServer, path: &str) -> Identity {
    let key = LocalKey::generate_blocking(KeyType::EcP256).unwrap();
    let workload_id = harness::trust_domain().member(path).unwrap();
    let csr = workload_request(&key, &workload_id).await.unwrap();
    let mut client = SvidClient::new(server.operator().await);
    let minted = client.mint_x509svid(MintX509svidRequest { csr, ttl: 0 }).await.unwrap();
    let svid = X509Svid::from_chain(minted.into_inner().svid.unwrap().cert_chain).unwrap();
    Identity::new(svid, std::sync::Arc::new(key))
}

/// Whether a status is the policy's refusal; anything else means that the handler ran.
fn is_denied(rule: &Rule, result: &Result<(), Status>) -> bool {
    let sentence = format!("authorization denied for method {}", rule.path());
    result.as_ref().is_err_and(|status| {
        status.code() == Code::PermissionDenied && status.message() == sentence
    })
}

#[tokio::test]
async fn every_method_is_open_to_its_classes_and_to_no_other() {
    let server = TestServer::start(
        "admin_ids = [\"spiffe://example.org/configured\"]
         ratelimit {
             attestation = false
             signing = false
         }",
    )
    .await;
    let mut client = entries(&server).await;
    created(&mut client, types::Entry { admin: true, ..entry("/admin", 1) }).await;
    created(&mut client, types::Entry { downstream: true, ..entry("/below", 2) }).await;
    let agent = agent(&server).await;
    let callers = [
        (Some(Class::Local), server.operator().await),
        (None, server.channel(None).await),
        (None, server.channel(Some(&workload(&server, "/stranger").await)).await),
        (Some(Class::Admin), server.channel(Some(&workload(&server, "/configured").await)).await),
        (Some(Class::Admin), server.channel(Some(&workload(&server, "/admin").await)).await),
        (Some(Class::Downstream), server.channel(Some(&workload(&server, "/below").await)).await),
        (Some(Class::Agent), server.channel(Some(&agent)).await),
    ];
    for rule in RULES {
        for (class, channel) in &callers {
            let result = call(channel, rule).await;
            if rule.is_local_only() && *class != Some(Class::Local) {
                let unknown = format!("unknown service {}", rule.service);
                assert_eq!(refused(result), (Code::Unimplemented, unknown), "{}", rule.path());
                continue;
            }
            let open = rule.allows(Class::Anyone) || class.is_some_and(|class| rule.allows(class));
            assert_eq!(is_denied(rule, &result), !open, "{} {class:?} {result:?}", rule.path());
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn only_methods_of_agents_tell_a_caller_with_an_svid_why_it_is_no_agent() {
    let server = server().await;
    let stranger = server.channel(Some(&workload(&server, "/stranger").await)).await;
    let nobody = server.channel(None).await;
    for rule in RULES.iter().filter(|rule| !rule.is_local_only() && !rule.allows(Class::Anyone)) {
        let reason = call(&stranger, rule).await.err().as_ref().and_then(denial::reason);
        let expected = rule.allows(Class::Agent).then_some(Reason::AgentNotAttested);
        assert_eq!(reason, expected, "{}", rule.path());
        let reason = call(&nobody, rule).await.err().as_ref().and_then(denial::reason);
        assert_eq!(reason, None, "{}", rule.path());
    }
    server.stop().await;
}

#[tokio::test]
async fn an_entry_makes_an_administrator_as_long_as_it_is_there() {
    let server = server().await;
    let mut client = entries(&server).await;
    let holder = workload(&server, "/admin").await;
    let entry = created(&mut client, types::Entry { admin: true, ..entry("/admin", 1) }).await;
    let mut remote = EntryClient::new(server.channel(Some(&holder)).await);
    until(async || remote.count_entries(CountEntriesRequest::default()).await.is_ok()).await;
    let request = BatchDeleteEntryRequest { ids: vec![entry.id] };
    client.batch_delete_entry(request).await.unwrap();
    until(async || remote.count_entries(CountEntriesRequest::default()).await.is_err()).await;
    server.stop().await;
}

/// A connection whose certificate the server has taken.
async fn admitted(server: &TestServer, identity: &Identity) -> Option<Channel> {
    let tls = harness::client_tls_at(Some(identity.clone()), server.clock.clone());
    let channel = harness::channel(server.server.address(), tls).await.ok()?;
    let mut open_to_anyone = BundleClient::new(channel.clone());
    open_to_anyone.get_bundle(GetBundleRequest::default()).await.ok().map(|_| channel)
}

#[tokio::test]
async fn an_administrator_of_another_trust_domain_is_known_by_its_stored_bundle() {
    let server = TestServer::start("admin_ids = [\"spiffe://partner.test/admin\"]").await;
    let partner = TrustDomain::parse("partner.test").unwrap();
    let authority = harness::TestAuthority::of(partner.clone()).await;
    let admin = authority.identity("/admin").await;
    let colleague = authority.identity("/colleague").await;
    let forged = harness::TestAuthority::of(partner.clone()).await.identity("/admin").await;
    assert!(admitted(&server, &admin).await.is_none());

    let mut bundles = BundleClient::new(server.operator().await);
    let bundle = vec![sent(&authority.bundle(), None)];
    let request = BatchSetFederatedBundleRequest { bundle, output_mask: None };
    bundles.batch_set_federated_bundle(request).await.unwrap();
    until(async || admitted(&server, &admin).await.is_some()).await;
    let channel = admitted(&server, &admin).await.unwrap();
    EntryClient::new(channel).count_entries(CountEntriesRequest::default()).await.unwrap();
    assert!(admitted(&server, &colleague).await.is_none());
    assert!(admitted(&server, &forged).await.is_none());

    let trust_domains = vec![partner.to_string()];
    let request = BatchDeleteFederatedBundleRequest { trust_domains, mode: 0 };
    bundles.batch_delete_federated_bundle(request).await.unwrap();
    until(async || admitted(&server, &admin).await.is_none()).await;
    server.stop().await;
}

#[tokio::test]
async fn paths_that_lead_nowhere_are_named() {
    let server = server().await;
    let channel = server.operator().await;
    let missing = Rule { service: "spire.api.server.entry.v1.Entry", method: "Nope", open_to: &[] };
    let sentence = "unknown method Nope for service spire.api.server.entry.v1.Entry";
    assert_eq!(refused(call(&channel, &missing).await), (Code::Unimplemented, sentence.to_owned()));
    let missing = Rule { service: "no.such.Service", method: "Nope", open_to: &[] };
    assert_eq!(
        refused(call(&channel, &missing).await),
        (Code::Unimplemented, "unknown service no.such.Service".to_owned())
    );
    server.stop().await;
}

/// Asks until it holds: the registry follows the store within milliseconds.
async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let asked = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), asked).await.unwrap();
}
