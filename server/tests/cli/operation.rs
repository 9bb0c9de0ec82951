//! `healthcheck`, `logger` and `debug`.

use super::*;

#[tokio::test]
async fn health_is_asked_for() {
    let server = server().await;
    assert_eq!(run(&server, "healthcheck -shallow").await.printed(), "Server is healthy.\n");
    let verbose = run(&server, "healthcheck -verbose").await.printed();
    assert_eq!(verbose, "Checking server health...\nServer is healthy.\n");
    server.stop().await;

    let nowhere = Path::new("/nowhere/s");
    let told = "Error: server is unhealthy: unable to determine health\n";
    assert_eq!(run_at(nowhere, "healthcheck").await.told(), told);
    let ran = run_at(nowhere, "healthcheck -verbose").await;
    assert_eq!((ran.code, ran.stdout.as_str()), (1, "Checking server health...\n"));
    let start = "Failed to check health: rpc error: code = Unavailable desc = connection error: ";
    assert!(ran.stderr.starts_with(start) && ran.stderr.ends_with(told), "{}", ran.stderr);
}

#[tokio::test]
async fn the_log_level_is_shown_and_changed() {
    let server = server().await;
    let shown = |now: &str| format!("Logger Level : {now}\nLaunch Level : info\n\n");
    assert_eq!(run(&server, "logger get").await.printed(), shown("info"));
    assert_eq!(run(&server, "logger set -level WARN").await.printed(), shown("warning"));
    let json = run(&server, "logger get -output json").await.printed();
    assert_eq!(json, "{\"current_level\":\"WARN\",\"launch_level\":\"INFO\"}\n");
    assert_eq!(run(&server, "logger reset").await.printed(), shown("info"));
    for (flags, told) in [
        ("", "a value (-level) must be set"),
        ("-level loud", "the value \"loud\" is not a valid setting"),
    ] {
        let ran = run(&server, &format!("logger set {flags}")).await;
        assert_eq!(ran.told(), format!("Error: {told}\n"));
    }
    server.stop().await;

    for (command, prefix) in [
        ("get", "error fetching logger"),
        ("set -level info", "failed to set log level"),
        ("reset", "failed to reset logger"),
    ] {
        let told = run_at(Path::new("/nowhere/s"), &format!("logger {command}")).await.told();
        assert!(told.starts_with(&format!("Error: {prefix}: rpc error: code = Unavailable")));
    }
}

#[tokio::test]
async fn the_server_says_what_it_holds() {
    let server = server().await;
    let printed = run(&server, "debug getinfo").await.printed();
    let lines: Vec<_> = printed.lines().collect();
    assert_eq!(lines[0], "Server Debug Info:");
    assert!(lines[1].starts_with("  Uptime:                          ") && lines[1].ends_with('s'));
    assert_eq!(lines[2], "  Registered Agents:               0");
    assert_eq!(lines[3], "  Registration Entries:            0");
    assert_eq!(lines[4], "  Federated Bundles:               1");
    assert_eq!(lines[5], "  SVID Chain:");
    assert_eq!(lines[6], "    [0] SPIFFE ID:  spiffe://example.org/spire/server");
    assert_eq!(lines[7], "        Subject:    O=SPIRE,C=US");
    assert!(lines[8].starts_with("        Expires At: 20") && lines[8].ends_with('Z'));
    assert_eq!(lines[9], "    [1] SPIFFE ID:  spiffe://example.org");

    let json = run(&server, "debug getinfo -output json").await.json();
    let names =
        ["agents_count", "entries_count", "federated_bundles_count", "svid_chain", "uptime"];
    assert_eq!(members(&json), names);
    assert_eq!(members(&json["svid_chain"][0]), ["expires_at", "id", "subject"]);
    assert!(json["uptime"].is_u64() && json["svid_chain"][0]["expires_at"].is_string());
    server.stop().await;
}
