//! `token generate`.

use super::*;

#[tokio::test]
async fn a_token_is_shown_in_both_forms() {
    let server = server().await;
    let printed = run(&server, "token generate -spiffeID spiffe://example.org/host").await;
    let printed = printed.printed();
    let token = printed.strip_prefix("Token: ").unwrap().strip_suffix('\n').unwrap();
    assert!(uuid::Uuid::parse_str(token).is_ok(), "{token}");

    let printed = run(&server, "token generate").await.printed();
    assert!(printed.ends_with("\nWarning: Missing SPIFFE ID.\n"), "{printed}");

    let json = run(&server, "token generate -ttl 60 -output json").await.json();
    let members: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, ["expires_at", "value"]);
    let expires_at = (server.clock.now().as_second() + 60).to_string();
    assert_eq!(json["expires_at"], expires_at.as_str());
    server.stop().await;
}

#[tokio::test]
async fn what_is_wrong_is_told() {
    let server = server().await;
    for (flags, told) in [
        (
            "-ttl 0",
            "rpc error: code = InvalidArgument desc = ttl is required, you must provide one",
        ),
        (
            "-ttl 99999999999",
            "invalid value for TTL: overflow converting int(99999999999) to int32",
        ),
        ("-spiffeID foo", "scheme is missing or invalid (-spiffeID \"foo\")"),
        (
            "-spiffeID spiffe://other.test/x",
            "rpc error: code = InvalidArgument desc = invalid agent ID: \
             \"spiffe://other.test/x\" is not a member of trust domain \"example.org\"",
        ),
    ] {
        let ran = run(&server, &format!("token generate {flags}")).await;
        assert_eq!(ran.told(), format!("Error: {told}\n"));
    }
    server.stop().await;
}
