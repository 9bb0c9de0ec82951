//! The audit log: who did what and with what result, a line for each operation and each item of a
//! batch. Secrets stay out of it.

use aws_lc_rs::digest::{SHA256, digest};
use spire_core::keys::{KeyType, LocalKey};
use spire_core::svid::x509::{Subject, mint_request, workload_request};
use spire_core::wire::agent::agent_client::AgentClient;
use spire_core::wire::agent::{CountAgentsRequest, CreateJoinTokenRequest};
use spire_core::wire::svid::svid_client::SvidClient;
use spire_core::wire::svid::*;
use spire_fakes::log::{self, Line, Log};

use super::*;

/// The lines of the audit log about a method, in their order.
fn audited(log: &Log, method: &str) -> Vec<Line> {
    let mut lines = log.with("API accessed");
    lines.retain(|line| line.field("method") == method);
    lines
}

/// The lines of the audit log about a method and an agent, whose connection has a thread of its
/// own.
fn audited_of(agent_id: &str, method: &str) -> Vec<Line> {
    let mut lines = log::kept();
    lines.retain(|line| {
        let of_agent = [line.field("caller_id"), line.field("agent_id")].contains(&agent_id);
        line.message == "API accessed" && line.field("method") == method && of_agent
    });
    lines
}

fn only(lines: Vec<Line>) -> Line {
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.into_iter().next().unwrap()
}

/// The line says all that; an empty value stands for a field that must not be there.
fn says(line: &Line, expected: &[(&str, &str)]) {
    for (name, value) in expected {
        assert_eq!(line.field(name), *value, "{name} in {line:?}");
        assert_eq!(line.fields.contains_key(name), !value.is_empty(), "{name} in {line:?}");
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(digest(&SHA256, bytes))
}

#[tokio::test]
async fn each_item_of_a_batch_has_a_line_that_says_who_asked_and_what_came_of_it() {
    let log = Log::read();
    let server = server().await;
    let mut client = entries(&server).await;
    let good = types::Entry {
        selectors: vec![selector("unix", "uid:1"), selector("unix", "gid:2")],
        x509_svid_ttl: 60,
        dns_names: vec!["a.test".into(), "b.test".into()],
        hint: "web".into(),
        ..entry("/good", 1)
    };
    let bad = types::Entry { selectors: Vec::new(), ..entry("/bad", 2) };
    let results = create(&mut client, [good, bad]).await;
    let created = results[0].entry.clone().unwrap();
    let (_, refusal) = said(results[1].status.clone());

    let lines = audited(&log, "BatchCreateEntry");
    let [good, bad] = &lines[..] else { panic!("{lines:?}") };
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let program = std::env::current_exe().unwrap();
    for line in [good, bad] {
        assert_eq!(line.level.as_str(), "INFO");
        says(
            line,
            &[
                ("type", "audit"),
                ("subsystem_name", "api"),
                ("service", "entry.v1.Entry"),
                ("request_id", good.field("request_id")),
                ("caller_uid", &uid.as_raw().to_string()),
                ("caller_gid", &gid.as_raw().to_string()),
                ("caller_path", &program.display().to_string()),
                ("caller_addr", ""),
                ("caller_id", ""),
                ("authorized_as", "local"),
                ("authorized_via", "transport"),
                ("parent_id", &format!("spiffe://example.org{AGENT}")),
            ],
        );
    }
    says(
        good,
        &[
            ("status", "success"),
            ("status_code", ""),
            ("status_message", ""),
            ("spiffe_id", "spiffe://example.org/good"),
            ("entry_id", &created.id),
            ("revision_number", "0"),
            ("selectors", "unix:uid:1,unix:gid:2"),
            ("x509_svid_ttl", "60"),
            ("dns_name", "a.test,b.test"),
            ("hint", "web"),
            ("downstream", "false"),
        ],
    );
    says(
        bad,
        &[
            ("status", "error"),
            ("status_code", "InvalidArgument"),
            ("status_message", &refusal),
            ("spiffe_id", "spiffe://example.org/bad"),
            ("entry_id", ""),
        ],
    );
    server.stop().await;
}

#[tokio::test]
async fn what_is_signed_and_given_out_is_named_and_no_secret_is() {
    let log = Log::read();
    let server = server().await;
    let mut svids = SvidClient::new(server.operator().await);
    let key = LocalKey::generate_blocking(KeyType::EcP256).unwrap();
    let minted = spire_core::id::SpiffeId::parse("spiffe://example.org/minted").unwrap();
    let csr = mint_request(&key, &Subject::default(), &[], &minted).await.unwrap();
    let request = MintX509svidRequest { csr: csr.clone(), ttl: 60 };
    svids.mint_x509svid(request).await.unwrap();
    let request =
        MintJwtsvidRequest { id: id("/minted"), audience: vec!["a".into(), "b".into()], ttl: 30 };
    let jwt = svids.mint_jwtsvid(request).await.unwrap().into_inner().svid.unwrap().token;
    let request =
        CreateJoinTokenRequest { ttl: 600, token: "a-token".into(), agent_id: id("/alias") };
    AgentClient::new(server.operator().await).create_join_token(request).await.unwrap();

    let by_operator = [("status", "success"), ("authorized_as", "local")];
    let line = only(audited(&log, "MintX509SVID"));
    says(&line, &by_operator);
    let csr_digest = sha256(&csr);
    says(&line, &[("spiffe_id", minted.as_str()), ("csr", &csr_digest), ("ttl", "60")]);
    let line = only(audited(&log, "MintJWTSVID"));
    says(&line, &by_operator);
    says(&line, &[("spiffe_id", minted.as_str()), ("audience", "a,b"), ("ttl", "30")]);
    let line = only(audited(&log, "CreateJoinToken"));
    says(&line, &by_operator);
    says(&line, &[("spiffe_id", "spiffe://example.org/alias"), ("ttl", "600")]);

    for line in log.lines() {
        let said = format!("{line:?}");
        for secret in ["a-token", jwt.as_str(), &hex::encode(&csr)] {
            assert!(!said.contains(secret), "{said}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn agents_are_named_with_what_they_were_allowed_and_denied() {
    let server = server().await;
    let path = "/spire/agent/join_token/audited";
    let own = types::Entry { parent_id: id(path), ..entry("/w", 1) };
    let own = created(&mut entries(&server).await, own).await;
    server.create_token("audited", 600).await;
    let agent = TestAgent::new().attest(&server, "join_token", "audited").await.unwrap();
    let agent_id = format!("spiffe://example.org{path}");
    let attested = log::kept().into_iter().find(|line| {
        line.message == "Agent attestation request completed" && line.field("agent_id") == agent_id
    });
    says(&attested.unwrap(), &[("node_attestor_type", "join_token"), ("subsystem_name", "api")]);
    let line = only(audited_of(&agent_id, "AttestAgent"));
    says(
        &line,
        &[
            ("status", "success"),
            ("node_attestor_type", "join_token"),
            ("agent_id", &agent_id),
            ("caller_id", ""),
            ("caller_uid", ""),
            ("authorized_as", ""),
            ("authorized_via", ""),
        ],
    );
    assert!(line.field("caller_addr").starts_with("127.0.0.1:"), "{line:?}");

    let channel = server.channel(Some(&agent)).await;
    let key = LocalKey::generate_blocking(KeyType::EcP256).unwrap();
    let csr = workload_request(&key, &agent.svid().id).await.unwrap();
    let params = |entry_id: &str| NewX509svidParams { entry_id: entry_id.into(), csr: csr.clone() };
    let request = BatchNewX509svidRequest { params: vec![params(&own.id), params("unknown")] };
    SvidClient::new(channel.clone()).batch_new_x509svid(request).await.unwrap();
    let lines = audited_of(&agent_id, "BatchNewX509SVID");
    let [signed, refused] = &lines[..] else { panic!("{lines:?}") };
    let csr_digest = sha256(&csr);
    for line in [signed, refused] {
        says(
            line,
            &[
                ("caller_id", &agent_id),
                ("authorized_as", "agent"),
                ("authorized_via", "datastore"),
                ("csr", &csr_digest),
            ],
        );
        assert!(line.field("caller_addr").starts_with("127.0.0.1:"), "{line:?}");
    }
    let done = [("status", "success"), ("spiffe_id", "spiffe://example.org/w")];
    says(signed, &done);
    says(signed, &[("entry_id", &own.id)]);
    let failed = [("status", "error"), ("status_code", "NotFound"), ("entry_id", "unknown")];
    says(refused, &failed);

    // What only operators may ask.
    let denied = AgentClient::new(channel).count_agents(CountAgentsRequest::default()).await;
    let denied = denied.unwrap_err();
    says(
        &only(audited_of(&agent_id, "CountAgents")),
        &[
            ("status", "error"),
            ("status_code", "PermissionDenied"),
            ("status_message", denied.message()),
            ("caller_id", &agent_id),
            ("authorized_as", ""),
        ],
    );
    server.stop().await;
}

#[tokio::test]
async fn nothing_is_audited_unless_asked_for() {
    let log = Log::read();
    let server = TestServer::start("").await;
    created(&mut entries(&server).await, entry("/w", 1)).await;
    assert!(log.with("API accessed").is_empty());
    server.stop().await;
}
