//! `healthcheck`, `logger` and `debug`.

use std::time::{Duration, Instant};

use spire_agent::cache::{Cache, JwtSvids, SignJwt};
use spire_agent::endpoints::{Audience, DebugService, LoggerService, UnixEndpoint, admin_services};
use spire_agent::rotation::due::Renewal;
use spire_core::clock::Clock;
use spire_core::tasks::Tasks;
use spire_core::telemetry::log::{LogSettings, Logger};
use tokio::sync::watch;

use super::*;

#[tokio::test]
async fn health_is_asked_for() {
    let node = node_with_a_partner().await;
    assert_eq!(run(&node.socket, "healthcheck -shallow").await.printed(), "Agent is healthy.\n");
    let verbose = run(&node.socket, "healthcheck -verbose").await.printed();
    assert_eq!(verbose, "Checking agent health...\nAgent is healthy.\n");

    let nowhere = Path::new("/nowhere/s");
    let told = "Agent is unhealthy: unable to determine health\n";
    assert_eq!(run(nowhere, "healthcheck").await.told(), told);
    let ran = run(nowhere, "healthcheck -verbose").await;
    assert_eq!((ran.code, ran.stdout.as_str()), (1, "Checking agent health...\n"));
    assert_eq!(ran.stderr, format!("Failed to check health: {}{told}", nobody_at("/nowhere/s")));
}

#[tokio::test]
async fn operators_see_the_log_level_and_what_the_agent_holds() {
    let authority = Authority::new("example.org").await;
    let clock = Clock::system();
    let trust_domain = authority.bundle().trust_domain;
    let sign: SignJwt = Box::new(|_, _| unreachable!("no token is asked for"));
    let debug = DebugService {
        identity: watch::channel(None).1,
        bundle: watch::channel(authority.bundle().into()).1,
        cache: Cache::new(trust_domain, 10, Renewal::default(), clock.clone()),
        jwt_svids: JwtSvids::new(sign, 10, Duration::from_secs(1), clock),
        started: Instant::now(),
    };
    let log = Logger::start(LogSettings::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("admin.sock");
    let tasks = Tasks::new();
    let endpoint = UnixEndpoint::bind(&socket, Audience::Operators).unwrap();
    tasks.spawn(endpoint.serve(admin_services(debug, LoggerService { log }), tasks.clone()));
    let asked = async |line: &str| {
        let line = format!("{line} -socketPath {}", socket.display());
        run(Path::new("/other"), &line).await
    };

    let shown = |now: &str| format!("Logger Level : {now}\nLaunch Level : info\n\n");
    assert_eq!(asked("logger get").await.printed(), shown("info"));
    assert_eq!(asked("logger set -level debug").await.printed(), shown("debug"));
    let json = asked("logger reset -output json").await.printed();
    assert_eq!(json, "{\"current_level\":\"INFO\",\"launch_level\":\"INFO\"}\n");
    let told = asked("logger set -level loud").await.told();
    assert_eq!(told, "Error: the value \"loud\" is not a valid setting\n");

    let printed = asked("debug getinfo").await.printed();
    let lines: Vec<_> = printed.lines().collect();
    assert_eq!(lines[0], "Agent Debug Info:");
    assert!(lines[1].starts_with("  Uptime:                          "));
    assert_eq!(
        lines[2..],
        [
            "  Last Sync Success:               (never)",
            "  Cached X.509 SVIDs:              0",
            "  Cached JWT SVIDs:                0",
            "  Cached SVID Store X.509 SVIDs:   0",
            "  SVID Chain:",
        ]
    );
    let json = asked("debug getinfo -output json").await.json();
    let names = [
        "cached_jwt_svids_count",
        "cached_svidstore_x509_svids_count",
        "cached_x509_svids_count",
        "last_sync_success",
        "svid_chain",
        "svids_count",
        "uptime",
    ];
    assert_eq!(members(&json), names);

    let told = run(Path::new("/other"), "logger get -socketPath /nowhere/s").await.told();
    assert_eq!(told, format!("Error: error fetching logger: {}", nobody_at("///nowhere/s")));
}
