//! Nodes become agents and cease to be, over real sockets against a whole server.
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

mod harness;

use harness::{TestAgent, TestServer};
use jiff::SignedDuration;
use spire_core::limits::MAX_MESSAGE_BYTES;
use spire_core::tls::Identity;
use spire_core::wire::agent::*;
use spire_core::wire::convert::denial::{self, Reason};
use spire_core::wire::types;
use spire_fakes::log;
use spire_server::store::{Attestation, KeyFingerprint, Recorded};
use tonic::Code;

const TOKEN: &str = "6e1c2f0a-token";

fn wire_id(path: &str) -> Option<types::Spiffeid> {
    Some(types::Spiffeid { trust_domain: "example.org".into(), path: path.into() })
}

fn token_id() -> Option<types::Spiffeid> {
    wire_id(&format!("/spire/agent/join_token/{TOKEN}"))
}

#[tokio::test]
async fn of_many_agents_with_one_token_one_wins() {
    let server = TestServer::start("ratelimit { attestation = false }").await;
    server.create_token(TOKEN, 600).await;
    let tries = (0..50).map(|_| async {
        let agent = TestAgent::new();
        agent.attest(&server, "join_token", TOKEN).await
    });
    let results = futures::future::join_all(tries).await;
    let refusals: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    assert_eq!(refusals.len(), 49);
    for status in refusals {
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(
            status.message(),
            "failed to attest: join token does not exist or has already been used"
        );
    }
    let listed = server.agents().await.list_agents(ListAgentsRequest::default()).await.unwrap();
    let agents = listed.into_inner().agents;
    assert_eq!(agents.len(), 1);
    assert_eq!(agents[0].id, token_id());
    let winner = results.into_iter().find_map(Result::ok).unwrap();
    assert_eq!(agents[0].x509svid_serial_number, winner.svid().serial);
    server.stop().await;
}

#[tokio::test]
async fn an_agent_whose_answer_was_lost_may_ask_again_while_the_token_lives() {
    let server = TestServer::start("ratelimit { attestation = false }").await;
    server.create_token(TOKEN, 600).await;
    let agent = TestAgent::new();
    let first = agent.attest(&server, "join_token", TOKEN).await.unwrap();
    let second = agent.attest(&server, "join_token", TOKEN).await.unwrap();
    assert_ne!(first.svid().serial, second.svid().serial);
    assert_eq!(server.post_status(&second).await, Ok(()));

    server.clock.advance(SignedDuration::from_secs(601));
    let late = agent.attest(&server, "join_token", TOKEN).await.unwrap_err();
    let used = "failed to attest: join token does not exist or has already been used";
    assert_eq!((late.code(), late.message()), (Code::InvalidArgument, used));
    server.stop().await;
}

#[tokio::test]
async fn unknown_and_expired_tokens_and_unknown_attestors_are_refused_by_name() {
    let server = TestServer::start("ratelimit { attestation = false }").await;
    server.create_token(TOKEN, 5).await;
    let agent = TestAgent::new();
    let unknown = "failed to attest: join token does not exist or has already been used";
    for token in ["another", "no/path", "\u{e4}"] {
        let status = agent.attest(&server, "join_token", token).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, unknown), "{token}");
    }
    server.clock.advance(SignedDuration::from_secs(6));
    let status = agent.attest(&server, "join_token", TOKEN).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "join token expired"));
    let status = agent.attest(&server, "join_token", TOKEN).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, unknown));

    let status = agent.attest(&server, "nope", "x").await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(
        status.message(),
        "error getting node attestor: could not find node attestor type \"nope\""
    );
    server.stop().await;
}

#[tokio::test]
async fn a_banned_agent_stays_out_and_an_evicted_one_may_come_back() {
    let server = TestServer::start("ratelimit { attestation = false }").await;
    server.create_token(TOKEN, 600).await;
    let agent = TestAgent::new();
    let identity = agent.attest(&server, "join_token", TOKEN).await.unwrap();
    assert_eq!(server.post_status(&identity).await, Ok(()));

    let mut agents = server.agents().await;
    agents.ban_agent(BanAgentRequest { id: token_id() }).await.unwrap();
    assert_eq!(server.post_status(&identity).await, Err(Some(Reason::AgentBanned)));
    assert_logged("Agent is banned", &identity);
    let status = agent.attest(&server, "join_token", TOKEN).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::PermissionDenied, "failed to attest: agent is banned")
    );
    let request = GetAgentRequest { id: token_id(), output_mask: None };
    let banned = agents.get_agent(request).await.unwrap().into_inner();
    assert!(banned.banned && banned.x509svid_serial_number.is_empty());

    agents.delete_agent(DeleteAgentRequest { id: token_id() }).await.unwrap();
    assert_eq!(server.post_status(&identity).await, Err(Some(Reason::AgentNotAttested)));
    assert_logged("Agent is not attested", &identity);
    let status = agents.delete_agent(DeleteAgentRequest { id: token_id() }).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::NotFound, "agent not found"));
    let status = agents.ban_agent(BanAgentRequest { id: token_id() }).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::NotFound, "agent not found"));

    server.create_token(TOKEN, 600).await;
    let back = agent.attest(&server, "join_token", TOKEN).await.unwrap();
    assert_eq!(server.post_status(&back).await, Ok(()));
    server.stop().await;
}

/// Operators find in the log who was refused, and why.
fn assert_logged(message: &str, refused: &Identity) {
    let lines = log::kept();
    let id = format!("{:?}", refused.svid().id.as_str());
    let line = lines.iter().find(|line| line.message == message && line.field("caller_id") == id);
    let line = line.unwrap_or_else(|| panic!("{message:?} of {id} is not in the log"));
    assert_eq!(line.level.as_str(), "ERROR");
    assert!(line.field("caller_addr").starts_with("127.0.0.1:"), "{line:?}");
}

#[tokio::test]
async fn both_svids_count_until_the_renewed_one_is_used() {
    let server = TestServer::start("ratelimit { attestation = false }").await;
    server.create_token(TOKEN, 600).await;
    let agent = TestAgent::new();
    let old = agent.attest(&server, "join_token", TOKEN).await.unwrap();

    let mut over_old = server.agents_as(&old).await;
    let renew = |csr| RenewAgentRequest { params: Some(AgentX509svidParams { csr }) };
    let renewed = over_old.renew_agent(renew(agent.csr().await)).await.unwrap().into_inner();
    let renewed = agent.identity(renewed.svid.unwrap());
    assert_eq!(server.post_status(&old).await, Ok(()));
    assert_eq!(server.post_status(&renewed).await, Ok(()));
    server.until_refused(&old, Reason::AgentNotActive).await;
    assert_logged("Agent SVID is not active", &old);
    assert_eq!(server.post_status(&renewed).await, Ok(()));

    let mut over_renewed = server.agents_as(&renewed).await;
    let status = over_renewed.renew_agent(RenewAgentRequest::default()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "params cannot be nil"));
    let status = over_renewed.renew_agent(renew("x".into())).await.unwrap_err();
    assert!(status.message().starts_with("failed to parse CSR: "), "{status}");

    // The connection outlives the SVID, the class of its agent does not.
    server.clock.advance(SignedDuration::from_hours(2));
    let status = over_renewed.post_status(PostStatusRequest::default()).await.unwrap_err();
    assert_eq!(denial::reason(&status), Some(Reason::AgentExpired));
    assert_logged("Agent SVID is expired", &renewed);
    server.stop().await;
}

#[tokio::test]
async fn an_agent_that_can_attest_again_does_not_renew() {
    let server = TestServer::start(
        "ratelimit { attestation = false }
         experimental { cache_reload_interval = \"10ms\" }",
    )
    .await;
    server.create_token(TOKEN, 600).await;
    let agent = TestAgent::new();
    let identity = agent.attest(&server, "join_token", TOKEN).await.unwrap();
    // Another server finds that its evidence may count more than once.
    let attestation = Attestation {
        agent_id: identity.svid().id.clone(),
        attestation_type: "x509pop".to_owned(),
        serial: identity.svid().serial.clone(),
        expires_at: identity.svid().expires_at,
        can_reattest: true,
        selectors: Default::default(),
        key: KeyFingerprint([0; 32]),
        join_token: None,
    };
    let store = server.store().await;
    let recorded = store.record_attestation(attestation, server.clock.now()).await.unwrap();
    assert!(matches!(recorded, Recorded::Stored(_)), "{recorded:?}");
    store.close().await;

    let mut agents = server.agents_as(&identity).await;
    let params = Some(AgentX509svidParams { csr: agent.csr().await });
    let refused = async {
        loop {
            let request = RenewAgentRequest { params: params.clone() };
            match agents.renew_agent(request).await {
                Ok(_) => tokio::task::yield_now().await,
                Err(status) => break status,
            }
        }
    };
    let refused = tokio::time::timeout(std::time::Duration::from_secs(10), refused);
    let status = refused.await.unwrap();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(status.message(), "agent must reattest instead of renew");
    assert_eq!(denial::reason(&status), Some(Reason::AgentMustReattest));
    server.stop().await;
}

#[tokio::test]
async fn a_token_with_an_alias_makes_its_entry() {
    let server = TestServer::start("").await;
    let mut agents = server.agents().await;
    let request = |ttl, id| CreateJoinTokenRequest { ttl, token: String::new(), agent_id: id };
    let made = agents.create_join_token(request(60, wire_id("/host"))).await.unwrap().into_inner();
    assert_eq!(made.value.len(), 36);
    assert_eq!(made.expires_at, server.clock.now().as_second() + 60);

    let status = agents.create_join_token(request(0, None)).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "ttl is required, you must provide one")
    );
    let foreign = types::Spiffeid { trust_domain: "other.test".into(), path: "/x".into() };
    let status = agents.create_join_token(request(60, Some(foreign))).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(
        status.message(),
        "invalid agent ID: \"spiffe://other.test/x\" is not a member of trust domain \"example.org\""
    );
    let again = CreateJoinTokenRequest { ttl: 60, token: made.value, agent_id: None };
    let status = agents.create_join_token(again).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
    server.stop().await;
}

#[tokio::test]
async fn selectors_hold_the_agents_own_id_where_that_is_wanted() {
    let server = TestServer::start("experimental { agent_spiffe_id_as_selector = true }").await;
    server.create_token(TOKEN, 600).await;
    TestAgent::new().attest(&server, "join_token", TOKEN).await.unwrap();
    let request = GetAgentRequest { id: token_id(), output_mask: None };
    let agent = server.agents().await.get_agent(request).await.unwrap().into_inner();
    assert_eq!(
        agent.selectors,
        [types::Selector {
            r#type: "spiffe_id".into(),
            value: format!("spiffe://example.org/spire/agent/join_token/{TOKEN}"),
        }]
    );
    server.stop().await;
}

#[tokio::test]
async fn agents_are_told_apart_by_their_filters() {
    let server = TestServer::start("ratelimit { attestation = false }").await;
    for token in ["a", "b", "c"] {
        server.create_token(token, 600).await;
        TestAgent::new().attest(&server, "join_token", token).await.unwrap();
    }
    let mut agents = server.agents().await;
    agents.ban_agent(BanAgentRequest { id: wire_id("/spire/agent/join_token/b") }).await.unwrap();
    let filter = |banned| count_agents_request::Filter { by_banned: banned, ..Default::default() };
    for (banned, expected) in [(None, 3), (Some(true), 1), (Some(false), 2)] {
        let request = CountAgentsRequest { filter: Some(filter(banned)) };
        assert_eq!(agents.count_agents(request).await.unwrap().into_inner().count, expected);
    }
    let page =
        |token: String| ListAgentsRequest { page_size: 2, page_token: token, ..Default::default() };
    let first = agents.list_agents(page(String::new())).await.unwrap().into_inner();
    assert_eq!(first.agents.len(), 2);
    let second = agents.list_agents(page(first.next_page_token)).await.unwrap().into_inner();
    assert_eq!((second.agents.len(), second.next_page_token.as_str()), (1, ""));
    let status = agents.list_agents(page("x".into())).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    server.stop().await;
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_in_the_words_of_grpc() {
    let server = TestServer::start("").await;
    let token = "x".repeat(MAX_MESSAGE_BYTES);
    let request = CreateJoinTokenRequest { token, ..Default::default() };
    let status = server.agents().await.create_join_token(request).await.unwrap_err();
    let expected = "grpc: received message larger than max (4194309 vs. 4194304)";
    assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, expected));

    let large = "x".repeat(MAX_MESSAGE_BYTES);
    let status = TestAgent::new().attest(&server, "join_token", &large).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().starts_with("grpc: received message larger than max ("), "{status}");
    server.stop().await;
}
