//! The endpoint: its protocol, the header, and who a caller is.

use std::sync::atomic::Ordering;
use std::time::Duration;

use spire_core::wire::types;
use spire_core::wire::workload::{
    JwtBundlesRequest, JwtsvidRequest, ValidateJwtsvidRequest, WitBundlesRequest, WitsvidRequest,
    X509BundlesRequest, X509svidRequest,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Response, Status, Streaming};

use super::node::{Client, Node, call};
use super::{entry, ids, next, selectors, x509_svids};

const METHODS: [&str; 7] = [
    "FetchX509SVID",
    "FetchX509Bundles",
    "FetchJWTSVID",
    "FetchJWTBundles",
    "ValidateJWTSVID",
    "FetchWITSVID",
    "FetchWITBundles",
];

/// Calls a method with a request that would do, and returns how the first answer went.
async fn outcome(client: &mut Client, method: &str, header: Option<&str>) -> Code {
    fn with<T>(message: T, header: Option<&str>) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(value) = header {
            let value = MetadataValue::try_from(value).unwrap();
            request.metadata_mut().insert("workload.spiffe.io", value);
        }
        request
    }
    async fn first<T>(answers: Result<Response<Streaming<T>>, Status>) -> Result<(), Status> {
        next(&mut answers?.into_inner()).await.map(drop)
    }
    let result = match method {
        "FetchX509SVID" => {
            first(client.fetch_x509svid(with(X509svidRequest {}, header)).await).await
        }
        "FetchX509Bundles" => {
            first(client.fetch_x509_bundles(with(X509BundlesRequest {}, header)).await).await
        }
        "FetchJWTSVID" => {
            let request = JwtsvidRequest { audience: vec!["a".into()], spiffe_id: String::new() };
            client.fetch_jwtsvid(with(request, header)).await.map(drop)
        }
        "FetchJWTBundles" => {
            first(client.fetch_jwt_bundles(with(JwtBundlesRequest {}, header)).await).await
        }
        "ValidateJWTSVID" => {
            let request = ValidateJwtsvidRequest { audience: "a".into(), svid: "a.b.c".into() };
            client.validate_jwtsvid(with(request, header)).await.map(drop)
        }
        "FetchWITSVID" => {
            let request = WitsvidRequest { spiffe_id: String::new() };
            first(client.fetch_witsvid(with(request, header)).await).await
        }
        "FetchWITBundles" => {
            first(client.fetch_wit_bundles(with(WitBundlesRequest {}, header)).await).await
        }
        other => panic!("no method {other}"),
    };
    result.err().map_or(Code::Ok, |status| status.code())
}

#[tokio::test]
async fn we_02_08_it_speaks_grpc_without_tls_and_nothing_else() {
    let node = Node::start().await;
    node.authorize([entry("/w")]).await;
    let code = outcome(&mut node.client().await, "FetchX509SVID", Some("true")).await;
    assert_eq!(code, Code::Ok);

    let mut stream = node.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer));
    // However the connection ends, it ends.
    let _ = read.await.expect("the connection is closed");
    let answer = String::from_utf8_lossy(&answer);
    assert!(!answer.contains("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn we_06_07_each_method_needs_the_header_before_anything_else() {
    let node = Node::start().await;
    node.authorize([entry("/w")]).await;
    let mut client = node.client().await;
    for method in METHODS {
        for header in [None, Some("True"), Some("TRUE"), Some("1"), Some(""), Some("true,true")] {
            let code = outcome(&mut client, method, header).await;
            assert_eq!(code, Code::InvalidArgument, "{method} {header:?}");
        }
    }
    let mut twice = call(X509svidRequest {});
    twice.metadata_mut().append("workload.spiffe.io", MetadataValue::from_static("true"));
    let status = client.fetch_x509svid(twice).await.unwrap_err();
    assert_eq!(status.message(), "security header missing from request");
    assert_eq!(node.attestor.attestations.load(Ordering::SeqCst), 0);

    assert_eq!(outcome(&mut client, "FetchX509SVID", Some("true")).await, Code::Ok);
    assert_eq!(node.attestor.attestations.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn we_13_14_15_the_kernel_says_who_calls() {
    let node = Node::start().await;
    let own = format!("pid:{}", std::process::id());
    let mine = types::Entry { selectors: selectors(&[&own]), ..entry("/mine") };
    let others = types::Entry { selectors: selectors(&["pid:1"]), ..entry("/others") };
    node.authorize([mine, others]).await;
    let message = next(&mut x509_svids(&mut node.client().await).await).await.unwrap();
    assert_eq!(ids(&message), ["spiffe://example.org/mine"]);
}

#[tokio::test]
async fn we_17_while_callers_cannot_be_attested_the_service_is_unavailable() {
    let node = Node::start().await;
    node.authorize([entry("/w")]).await;
    node.attestor.fails.store(true, Ordering::SeqCst);
    let mut client = node.client().await;
    for method in &METHODS[..5] {
        let code = outcome(&mut client, method, Some("true")).await;
        assert_eq!(code, Code::Unavailable, "{method}");
    }
}

#[tokio::test]
async fn we_19_wl_22_26_29_callers_without_identity_are_denied() {
    let node = Node::start().await;
    node.authorize([types::Entry { selectors: selectors(&["nobody"]), ..entry("/w") }]).await;
    let mut client = node.client().await;
    for method in &METHODS[..4] {
        let code = outcome(&mut client, method, Some("true")).await;
        assert_eq!(code, Code::PermissionDenied, "{method}");
    }
}

#[tokio::test]
async fn wl_01_02_42_stb_01_x509_and_jwt_are_offered_and_wit_is_not() {
    let node = Node::start().await;
    node.authorize([entry("/w")]).await;
    let mut client = node.client().await;
    for method in METHODS {
        let expected = match method {
            "ValidateJWTSVID" => Code::InvalidArgument, // its token is none
            "FetchWITSVID" | "FetchWITBundles" => Code::Unimplemented,
            _ => Code::Ok,
        };
        assert_eq!(outcome(&mut client, method, Some("true")).await, expected, "{method}");
    }
}

/// The services that reflection of one version lists.
macro_rules! listed {
    ($version:ident, $channel:expr) => {{
        use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
        use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
        use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;
        let question = tonic_reflection::pb::$version::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let mut client = ServerReflectionClient::new($channel);
        let answers = client.server_reflection_info(futures::stream::iter([question])).await;
        let answer = next(&mut answers.unwrap().into_inner()).await.unwrap();
        match answer.message_response {
            Some(MessageResponse::ListServicesResponse(list)) => {
                list.service.into_iter().map(|service| service.name).collect::<Vec<_>>()
            }
            other => panic!("no list: {other:?}"),
        }
    }};
}

#[tokio::test]
async fn we_22_24_reflection_lists_the_workload_api() {
    let node = Node::start().await;
    let channel = node.channel().await;
    for mut listed in [listed!(v1, channel.clone()), listed!(v1alpha, channel)] {
        listed.sort();
        let expected = [
            "SpiffeWorkloadAPI",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        ];
        assert_eq!(listed, expected);
    }
}
