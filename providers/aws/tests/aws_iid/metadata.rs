//! A30: what an agent finds at the metadata service, and what it says where there is nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use spire_core::clock::Clock;
use spire_core::config::Section;
use spire_core::node::EvidenceSource;
use spire_fakes::aws::{Imds, Mode};
use spire_fakes::http::Trouble;

use super::support::{SIGNER, Setup, host, instance};

fn agent(config: &str) -> Arc<dyn EvidenceSource> {
    let section = Section::parse(config).unwrap();
    (spire_provider_aws::agent::PLUGIN.build)(&section, &host(&Clock::system())).unwrap()
}

async fn imds(mode: Mode) -> Imds {
    Imds::start(mode, SIGNER.evidence(&instance(), true)).await
}

fn at(imds: &Imds) -> String {
    format!("endpoints {{ metadata = {:?} }}", imds.url())
}

async fn payload(config: &str) -> Result<Vec<u8>, String> {
    let evidence = agent(config).collect().await;
    evidence.map(|evidence| evidence.payload().to_vec()).map_err(|error| error.to_string())
}

#[tokio::test]
async fn evidence_of_our_agent_satisfies_our_server() {
    let (imds, setup) = (imds(Mode::Version2).await, Setup::new("").await);
    for config in [
        at(&imds),
        format!("ec2_metadata_endpoint = \"{}\"", imds.url()),
        format!("ec2_metadata_endpoint = \"{}/latest\"", imds.url()),
        format!("ec2_metadata_endpoint = \"{}/latest/\"", imds.url()),
        format!("ec2_metadata_endpoint = \"http://127.0.0.1:1\"\n{}", at(&imds)),
    ] {
        let payload = payload(&config).await.unwrap();
        setup.show(&payload).await.accepted();
        let text = String::from_utf8(payload).unwrap();
        let places = ["\"document\":", "\"signature\":", "\"rsa2048\":"].map(|key| text.find(key));
        assert!(places.is_sorted() && places[0] == Some(1), "{places:?}");
    }
    let asked: Vec<String> =
        imds.server().requests().iter().map(|request| request.path.clone()).collect();
    assert_eq!(
        asked[..4],
        [
            "/latest/api/token",
            "/latest/dynamic/instance-identity/document",
            "/latest/dynamic/instance-identity/signature",
            "/latest/dynamic/instance-identity/rsa2048",
        ]
    );
}

#[tokio::test]
async fn a30_a_token_that_is_refused_once() {
    let imds = imds(Mode::Version2).await;
    let unauthorized = Trouble::Status(StatusCode::UNAUTHORIZED);
    imds.server().fail_where(1, unauthorized.clone(), |request| request.method == Method::GET);
    payload(&at(&imds)).await.unwrap();
    imds.server().fail_where(9, unauthorized, |request| request.method == Method::GET);
    assert!(payload(&at(&imds)).await.unwrap_err().contains("401"));
}

#[tokio::test]
async fn a30_version_1_alone() {
    let imds = imds(Mode::Version1).await;
    let error = payload(&at(&imds)).await.unwrap_err();
    assert!(error.contains("allow_imds_v1 = true"), "{error}");
    payload(&format!("allow_imds_v1 = true\n{}", at(&imds))).await.unwrap();
}

#[tokio::test]
async fn a30_hop_limit() {
    let imds = imds(Mode::Version2).await;
    imds.server().fail_where(99, Trouble::Hang, |request| request.method == Method::PUT);
    let began = Instant::now();
    let error = payload(&at(&imds)).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(error.contains("--http-put-response-hop-limit 2"), "{error}");
}

#[tokio::test]
async fn a30_token_without_its_time() {
    payload(&at(&imds(Mode::Version2WithoutTtl).await)).await.unwrap();
}

#[tokio::test]
async fn a30_disabled_or_not_there() {
    let disabled = imds(Mode::Disabled).await;
    let error = payload(&at(&disabled)).await.unwrap_err();
    assert!(error.contains("disabled for this instance"), "{error}");
    let error = payload("endpoints { metadata = \"http://127.0.0.1:1\" }").await.unwrap_err();
    assert!(error.contains("is this an EC2 instance"), "{error}");
}

#[tokio::test]
async fn what_is_missing_or_no_text_is_named() {
    let imds = imds(Mode::Version2).await;
    for path in ["document", "signature", "rsa2048"] {
        let of_path = move |request: &spire_fakes::http::Request| request.path.ends_with(path);
        imds.server().fail_where(1, Trouble::Status(StatusCode::NOT_FOUND), of_path);
        let error = payload(&at(&imds)).await.unwrap_err();
        assert!(error.contains(path) && error.contains("404"), "{error}");
        imds.server().fail_where(1, Trouble::Body(vec![0xff, 0xfe].into()), of_path);
        assert!(payload(&at(&imds)).await.unwrap_err().contains("other than text"));
        imds.server().fail_where(1, Trouble::Body(vec![b'x'; 1 << 20].into()), of_path);
        assert!(payload(&at(&imds)).await.unwrap_err().contains("longer than"));
    }
    imds.server().fail_next(1, Trouble::Status(StatusCode::SERVICE_UNAVAILABLE));
    payload(&at(&imds)).await.unwrap();
    imds.server().fail_next(1, Trouble::Status(StatusCode::BAD_REQUEST));
    assert!(payload(&at(&imds)).await.unwrap_err().contains("400"));
}

#[tokio::test]
async fn a_challenge_is_not_expected() {
    let imds = imds(Mode::Version2).await;
    let mut evidence =
        agent(&at(&imds)).collect().await.map_err(|error| error.to_string()).unwrap();
    evidence.answer(b"nonce").await.unwrap_err();
}
