//! What operators see: the admin socket, health, reflection, and why a caller got nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use http::uri::PathAndQuery;
use spire_agent::endpoints::{Audience, DebugService, LoggerService, UnixEndpoint, admin_services};
use spire_core::keys::LocalKey;
use spire_core::telemetry::log::{LogFormat, LogSettings, Logger};
use spire_core::tls::Identity;
use spire_core::wire::agent_debug::GetInfoRequest;
use spire_core::wire::agent_debug::debug_client::DebugClient;
use spire_core::wire::agent_logger::logger_client::LoggerClient;
use spire_core::wire::agent_logger::{GetLoggerRequest, ResetLogLevelRequest, SetLogLevelRequest};
use spire_core::wire::health::HealthCheckRequest;
use spire_core::wire::health::health_check_response::ServingStatus;
use spire_core::wire::health::health_client::HealthClient;
use spire_core::wire::types;
use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::node::{Node, call, channel_to};
use super::other_process::OtherProcess;
use super::{entry, next, selectors, x509_svids};

/// The admin socket of `node` at `path`, and the agent's SVID that it shows.
async fn serve_admin(node: &Node, path: &Path, log: Logger) {
    let agent = types::Entry { id: "agent".into(), ..entry("/spire/agent/x") };
    let held = node.signed(&agent).await;
    let key = LocalKey::from_pkcs8(held.key.as_pkcs8()).unwrap();
    let (_, identity) = watch::channel(Some(Identity::new(held.svid, Arc::new(key))));
    let (_, bundle) = watch::channel(Arc::new(node.authority.bundle()));
    let debug = DebugService {
        identity,
        bundle,
        cache: node.cache.clone(),
        jwt_svids: node.jwt_svids.clone(),
        started: Instant::now(),
    };
    let endpoint = UnixEndpoint::bind(path, Audience::Operators).unwrap();
    let services = admin_services(debug, LoggerService { log });
    node.tasks.spawn(endpoint.serve(services, node.tasks.clone()));
}

/// Calls a method that takes and gives nothing that is looked at.
async fn call_any(channel: Channel, path: &'static str) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    client.unary(call(()), PathAndQuery::from_static(path), codec).await.map(drop)
}

async fn refusal(channel: Channel, path: &'static str) -> (Code, String) {
    let status = call_any(channel, path).await.unwrap_err();
    (status.code(), status.message().to_owned())
}

/// The line in a log of JSON lines whose message is `message` and which says `what` somewhere.
fn logged(log: &Path, message: &str, what: &str) -> Option<serde_json::Value> {
    let text = fs::read_to_string(log).unwrap();
    let mut lines = text.lines().filter(|line| line.contains(what));
    lines.find_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        (line["msg"] == message).then_some(line)
    })
}

/// The only test here that starts a log: there is one in a process.
#[tokio::test]
async fn the_admin_socket_shows_the_agent_and_changes_what_it_logs() {
    let node = Node::start().await;
    let lonely = types::Entry { selectors: selectors(&["any", "nobody"]), ..entry("/lonely") };
    node.authorize([entry("/logged"), lonely.clone()]).await;
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let settings =
        LogSettings { format: LogFormat::Json, file: Some(log.clone()), ..LogSettings::default() };
    let path = folder.path().join("admin.sock");
    serve_admin(&node, &path, Logger::start(settings).unwrap()).await;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o770);
    let admin = channel_to(&path).await;

    let info = DebugClient::new(admin.clone()).get_info(GetInfoRequest {}).await.unwrap();
    let info = info.into_inner();
    assert_eq!(info.svid_chain.len(), 3, "the leaf, the authority below the root, the root");
    let id = info.svid_chain[0].id.as_ref().unwrap();
    assert_eq!((&*id.trust_domain, &*id.path), ("example.org", "/spire/agent/x"));
    assert_eq!(info.last_sync_success, node.clock.now().as_second());
    assert_eq!((info.cached_x509_svids_count, info.cached_jwt_svids_count), (2, 0));

    let mut logger = LoggerClient::new(admin.clone());
    let told = logger.get_logger(GetLoggerRequest {}).await.unwrap().into_inner();
    let info_level = i32::from(types::LogLevel::Info);
    assert_eq!((told.current_level, told.launch_level), (info_level, info_level));
    let unspecified = logger.set_log_level(SetLogLevelRequest { new_level: 0 }).await;
    assert_eq!(unspecified.unwrap_err().code(), Code::InvalidArgument);

    let other = OtherProcess::calling(&node.socket);
    let mut client = super::Client::new(other.channel().await);
    next(&mut x509_svids(&mut client).await).await.unwrap();
    let pid = format!("\"pid\":{}", other.pid());
    assert_eq!(logged(&log, "Fetched X.509 SVID", &pid), None);
    let debug = SetLogLevelRequest { new_level: types::LogLevel::Debug.into() };
    let told = logger.set_log_level(debug).await.unwrap().into_inner();
    assert_eq!(told.current_level, i32::from(types::LogLevel::Debug));
    next(&mut x509_svids(&mut client).await).await.unwrap();
    let line = logged(&log, "Fetched X.509 SVID", &pid).unwrap();
    assert_eq!(line["spiffe_id"], "spiffe://example.org/logged");
    let told = logger.reset_log_level(ResetLogLevelRequest {}).await.unwrap().into_inner();
    assert_eq!(told.current_level, info_level);

    node.authorize([lonely]).await;
    let status = next(&mut x509_svids(&mut client).await).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "no identity issued"));
    let line = logged(&log, "No identity issued", &pid).unwrap();
    assert_eq!((&line["level"], &line["registered"]), (&"error".into(), &false.into()));
    let nearest = "entry lonely of spiffe://example.org/lonely lacks test:nobody";
    assert_eq!(line["nearest_entry"], nearest);
    assert!(line["selectors"].as_str().unwrap().starts_with("test:any,test:gid:"), "{line}");

    for (path, service) in [
        ("/SpiffeWorkloadAPI/FetchX509SVID", "SpiffeWorkloadAPI"),
        (
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "grpc.reflection.v1.ServerReflection",
        ),
    ] {
        let expected = (Code::Unimplemented, format!("unknown service {service}"));
        assert_eq!(refusal(admin.clone(), path).await, expected);
    }
}

#[tokio::test]
async fn what_workloads_cannot_call_is_unimplemented() {
    let node = Node::start().await;
    let channel = node.channel().await;
    let unimplemented = |text: &str| (Code::Unimplemented, text.to_owned());
    let expected = unimplemented("unknown method Nothing for service SpiffeWorkloadAPI");
    assert_eq!(refusal(channel.clone(), "/SpiffeWorkloadAPI/Nothing").await, expected);
    let expected = unimplemented("unknown service spire.agent.debug.v1.Debug");
    assert_eq!(refusal(channel, "/spire.agent.debug.v1.Debug/GetInfo").await, expected);
}

#[tokio::test]
async fn the_api_is_healthy_while_callers_can_be_attested() {
    let node = Node::start().await;
    let mut health = HealthClient::new(node.channel().await);
    for (fails, expected) in [(false, ServingStatus::Serving), (true, ServingStatus::NotServing)] {
        node.attestor.fails.store(fails, Ordering::SeqCst);
        let answer = health.check(Request::new(HealthCheckRequest::default())).await.unwrap();
        assert_eq!(answer.into_inner().status(), expected);
    }
    let of_one = HealthCheckRequest { service: "SpiffeWorkloadAPI".into() };
    let status = health.check(of_one).await.unwrap_err();
    let expected = (Code::InvalidArgument, "per-service health is not supported");
    assert_eq!((status.code(), status.message()), expected);
}
