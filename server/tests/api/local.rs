//! What only a process of this machine may ask.

use spire_core::wire::debug::GetInfoRequest;
use spire_core::wire::debug::debug_client::DebugClient;
use spire_core::wire::health::health_check_response::ServingStatus;
use spire_core::wire::health::health_client::HealthClient;
use spire_core::wire::health::{HealthCheckRequest, HealthListRequest};
use spire_core::wire::logger::logger_client::LoggerClient;
use spire_core::wire::logger::{GetLoggerRequest, ResetLogLevelRequest, SetLogLevelRequest};
use spire_core::wire::types::LogLevel;

use super::*;

#[tokio::test]
async fn health_is_that_of_the_whole_server() {
    let server = server().await;
    let mut client = HealthClient::new(server.operator().await);
    let serving = i32::from(ServingStatus::Serving);
    let whole = HealthCheckRequest::default();
    assert_eq!(client.check(whole.clone()).await.unwrap().into_inner().status, serving);
    let listed = client.list(HealthListRequest {}).await.unwrap().into_inner().statuses;
    assert_eq!((listed.len(), listed[""].status), (1, serving));
    let mut watched = client.watch(whole).await.unwrap().into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().status, serving);

    let part = HealthCheckRequest { service: "spire.api.server.entry.v1.Entry".into() };
    let refusal = (Code::InvalidArgument, "per-service health is not supported".to_owned());
    assert_eq!(refused(client.check(part.clone()).await), refusal);
    assert_eq!(refused(client.watch(part).await), refusal);
    server.stop().await;
    assert!(matches!(watched.message().await, Ok(None) | Err(_)));
}

#[tokio::test]
async fn the_server_counts_what_it_holds_and_shows_what_proves_it() {
    let server = server().await;
    agent(&server).await;
    let mut client = entries(&server).await;
    created(&mut client, entry("/w", 1)).await;
    let mut client = DebugClient::new(server.operator().await);
    let info = loop {
        let info = client.get_info(GetInfoRequest {}).await.unwrap().into_inner();
        if info.entries_count == 1 && info.agents_count == 1 {
            break info;
        }
    };
    assert_eq!(info.federated_bundles_count, 1);
    let chain: Vec<_> = info.svid_chain.iter().map(|one| one.id.clone()).collect();
    assert_eq!(chain, [id("/spire/server"), id("")]);
    assert_eq!(info.svid_chain[0].subject, "O=SPIRE,C=US");
    let root = &info.svid_chain[1];
    assert!(root.subject.starts_with("SERIALNUMBER=") && root.subject.ends_with(",O=SPIFFE,C=US"));
    assert!(root.expires_at > info.svid_chain[0].expires_at);
    server.stop().await;
}

#[tokio::test]
async fn the_log_level_is_changed_and_reset() {
    let server = server().await;
    let mut client = LoggerClient::new(server.operator().await);
    let at_launch = client.get_logger(GetLoggerRequest {}).await.unwrap().into_inner();
    assert_eq!(at_launch.current_level(), at_launch.launch_level());
    let request = SetLogLevelRequest { new_level: LogLevel::Error.into() };
    let changed = client.set_log_level(request).await.unwrap().into_inner();
    assert_eq!(changed.current_level(), LogLevel::Error);
    assert_eq!(changed.launch_level(), at_launch.launch_level());
    for new_level in [LogLevel::Unspecified.into(), 99] {
        let refused = refused(client.set_log_level(SetLogLevelRequest { new_level }).await);
        assert_eq!(refused.0, Code::InvalidArgument);
    }
    let reset = client.reset_log_level(ResetLogLevelRequest {}).await.unwrap().into_inner();
    assert_eq!(reset, at_launch);
    server.stop().await;
}
