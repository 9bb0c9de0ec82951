//! `agent`.

use spire_core::tls::Identity;

use super::*;
use harness::TestAgent;

const ID: &str = "spiffe://example.org/spire/agent/join_token/a-token";

async fn attested(server: &TestServer) -> Identity {
    server.create_token("a-token", 600).await;
    TestAgent::new().attest(server, "join_token", "a-token").await.unwrap()
}

#[tokio::test]
async fn an_agent_is_listed_counted_and_shown() {
    let server = server().await;
    assert_eq!(run(&server, "agent list").await.printed(), "No attested agents found\n");
    assert_eq!(run(&server, "agent count").await.printed(), "0 attested agents\n");
    attested(&server).await;
    assert_eq!(run(&server, "agent count").await.printed(), "1 attested agent\n");

    let json = run(&server, "agent list -output json").await.json();
    let agent = &json["agents"][0];
    let serial = agent["x509svid_serial_number"].as_str().unwrap();
    let expires_at = agent["x509svid_expires_at"].as_str().unwrap().parse().unwrap();
    let expected = serde_json::json!({
        "agent_version": "", "attestation_type": "join_token", "banned": false,
        "can_reattest": false, "selectors": [], "x509svid_serial_number": serial,
        "id": {"path": "/spire/agent/join_token/a-token", "trust_domain": "example.org"},
        "x509svid_expires_at": agent["x509svid_expires_at"],
    });
    assert_eq!(json, serde_json::json!({"agents": [expected], "next_page_token": ""}));
    let shown = run(&server, &format!("agent show -spiffeID {ID} -output json")).await.json();
    assert_eq!(shown, expected);
    let count = run(&server, "agent count -output json").await.json();
    assert_eq!(count, serde_json::json!({"count": 1}));

    let block = format!(
        "SPIFFE ID         : {ID}\nAttestation type  : join_token\nExpiration time   : {}\n\
         Serial number     : {serial}\nCan re-attest     : false\n\n",
        spire_core::command::utc_time(expires_at)
    );
    let listed = format!("Found 1 attested agent:\n\n{block}");
    assert_eq!(run(&server, "agent list").await.printed(), listed);
    let shown = format!("Found an attested agent given its SPIFFE ID\n\n{block}");
    assert_eq!(run(&server, &format!("agent show -spiffeID {ID}")).await.printed(), shown);
    server.stop().await;
}

#[tokio::test]
async fn agents_are_filtered() {
    let server = server().await;
    attested(&server).await;
    for (filter, count) in [
        ("-attestationType join_token", 1),
        ("-attestationType x509pop", 0),
        ("-banned true", 0),
        ("-banned false", 1),
        ("-banned maybe", 1),
        ("-canReattest true", 0),
        ("-canReattest false", 1),
        ("-selector a:b", 0),
    ] {
        let json = run(&server, &format!("agent count {filter} -output json")).await.json();
        assert_eq!(json["count"], count, "{filter}");
    }
    for (time, count) in
        [("2006-01-02 15:04:05 -0700 -07", 0), ("2106-01-02 15:04:05 +0000 +00", 1)]
    {
        let words = ["agent", "count", "-expiresBefore", time, "-output", "json"];
        let json = run_words(&server.socket, &words, b"").await.json();
        assert_eq!(json["count"], count, "{time}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_banned_agent_says_so_and_an_evicted_one_is_gone() {
    let server = server().await;
    attested(&server).await;
    let banned = run(&server, &format!("agent ban -spiffeID {ID}")).await.printed();
    assert_eq!(banned, "Agent banned successfully\n");
    let listed = run(&server, "agent list").await.printed();
    assert!(listed.contains("\nBanned            : true\nCan re-attest "), "{listed}");
    let evicted = run(&server, &format!("agent evict -spiffeID {ID} -output json")).await;
    assert_eq!(evicted.printed(), "{}\n");
    assert_eq!(run(&server, "agent count").await.printed(), "0 attested agents\n");
    server.stop().await;
}

#[tokio::test]
async fn a_purge_takes_agents_that_can_attest_again_and_expired_long_ago() {
    let server = server().await;
    attested(&server).await;
    assert_eq!(run(&server, "agent purge").await.printed(), "No agents to purge.\n");
    let json = run(&server, "agent purge -dryRun -output json").await.json();
    assert_eq!(json, serde_json::json!({"expired_agents": []}));
    server.stop().await;
}

#[tokio::test]
async fn what_is_wrong_is_told() {
    let server = server().await;
    let invalid = "rpc error: code = InvalidArgument desc = invalid agent ID: \
                   \"spiffe://example.org/x\" is not an agent in trust domain \"example.org\"; \
                   path is not in the agent namespace";
    let not_found = "rpc error: code = NotFound desc = agent not found";
    for command in ["show", "ban", "evict"] {
        for (flags, told) in [
            ("", "a SPIFFE ID is required"),
            ("-spiffeID foo", "scheme is missing or invalid (-spiffeID \"foo\")"),
            ("-spiffeID spiffe://example.org/x", invalid),
            ("-spiffeID spiffe://example.org/spire/agent/x", not_found),
        ] {
            let ran = run(&server, &format!("agent {command} {flags}")).await;
            assert_eq!(ran.told(), format!("Error: {told}\n"), "{command} {flags}");
        }
    }
    for (flags, told) in [
        (
            "-selector x",
            "error parsing selector \"x\": selector \"x\" must be formatted as type:value",
        ),
        ("-selector a:b -matchSelectorsOn x", "unsupported match behavior"),
    ] {
        let ran = run(&server, &format!("agent list {flags}")).await;
        assert_eq!(ran.told(), format!("Error: {told}\n"));
    }
    let told = run(&server, "agent count -expiresBefore x").await.told();
    let date =
        "Error: date is not valid: parsing time \"x\" as \"2006-01-02 15:04:05 -0700 -07\": ";
    assert!(told.starts_with(date), "{told}");
    server.stop().await;
}
