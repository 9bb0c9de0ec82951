//! What is signed, for whom, and what is refused.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use spire_core::id::{SpiffeId, TrustDomain};
use spire_core::keys::{KeyType, LocalKey};
use spire_core::svid::jwt;
use spire_core::svid::x509::{
    CertificateRequest, Issuer, LeafTemplate, Subject, ca_request, mint_request, verify,
    workload_request,
};
use spire_core::wire::bundle::GetBundleRequest;
use spire_core::wire::bundle::bundle_client::BundleClient;
use spire_core::wire::convert;
use spire_core::wire::svid::svid_client::SvidClient;
use spire_core::wire::svid::*;

use super::*;

fn key() -> Arc<LocalKey> {
    Arc::new(LocalKey::generate_blocking(KeyType::EcP256).unwrap())
}

fn spiffe_id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

async fn csr(text: &str) -> Bytes {
    workload_request(&*key(), &spiffe_id(text)).await.unwrap()
}

async fn own_bundle(server: &TestServer) -> spire_core::bundle::Bundle {
    let mut client = BundleClient::new(server.channel(None).await);
    let bundle = client.get_bundle(GetBundleRequest::default()).await.unwrap().into_inner();
    convert::bundle::bundle(&bundle).unwrap()
}

async fn svids(channel: Channel) -> SvidClient<Channel> {
    SvidClient::new(channel)
}

#[tokio::test]
async fn an_agent_gets_svids_of_its_entries_and_of_no_others() {
    let server = server().await;
    let mut client = entries(&server).await;
    let own =
        types::Entry { dns_names: vec!["w.test".into()], x509_svid_ttl: 60, ..entry("/w", 1) };
    let own = created(&mut client, own).await;
    let foreign = types::Entry { parent_id: id("/other"), ..entry("/x", 2) };
    let foreign = created(&mut client, foreign).await;
    let agent = agent(&server).await;
    let mut client = svids(server.channel(Some(&agent)).await).await;

    let params = |entry_id: &str, csr: &Bytes| NewX509svidParams {
        entry_id: entry_id.to_owned(),
        csr: csr.clone(),
    };
    let good = csr("spiffe://example.org/whatever").await;
    let mut tampered = good.to_vec();
    *tampered.last_mut().unwrap() ^= 1;
    let request = BatchNewX509svidRequest {
        params: vec![
            params(&own.id, &good),
            params(&foreign.id, &good),
            params("no id!", &good),
            params("", &good),
            params(&own.id, &Bytes::new()),
            params(&own.id, &Bytes::from_static(b"x")),
            params(&own.id, &tampered.into()),
            params(&own.id, &vec![0; 1 << 20].into()),
        ],
    };
    let results = client.batch_new_x509svid(request).await.unwrap().into_inner().results;
    let svid = results[0].svid.clone().unwrap();
    let now = server.clock.now();
    let verified = verify(&svid.cert_chain, &own_bundle(&server).await, now).unwrap();
    assert_eq!(verified.id, spiffe_id("spiffe://example.org/w"));
    assert_eq!((svid.id, svid.expires_at), (id("/w"), now.as_second() + 60));
    assert!(String::from_utf8_lossy(&svid.cert_chain[0]).contains("w.test"));

    let said: Vec<_> = results.into_iter().map(|one| said(one.status)).collect();
    let not_found = (Code::NotFound, "entry not found or not authorized".to_owned());
    assert_eq!(said[0], (Code::Ok, "OK".to_owned()));
    assert_eq!((&said[1], &said[2]), (&not_found, &not_found));
    assert_eq!(said[3], (Code::InvalidArgument, "missing entry ID".to_owned()));
    assert_eq!(said[4], (Code::InvalidArgument, "missing CSR".to_owned()));
    for (code, sentence) in &said[5..] {
        assert_eq!(*code, Code::InvalidArgument);
        assert!(sentence.starts_with("malformed CSR: "), "{sentence}");
    }
    let nothing = client.batch_new_x509svid(BatchNewX509svidRequest::default()).await;
    assert_eq!(refused(nothing), (Code::InvalidArgument, "missing parameters".to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn more_certificates_than_a_second_gives_are_refused_at_once() {
    let server = TestServer::start("").await;
    let agent = agent(&server).await;
    let mut client = svids(server.channel(Some(&agent)).await).await;
    let request = BatchNewX509svidRequest { params: vec![NewX509svidParams::default(); 501] };
    assert_eq!(
        refused(client.batch_new_x509svid(request).await),
        (
            Code::ResourceExhausted,
            "rejecting request due to certificate signing rate limiting: rate (501) exceeds burst \
             size (500)"
                .to_owned()
        )
    );
    server.stop().await;
}

#[tokio::test]
async fn jwt_08_10_13_an_agent_gets_tokens_for_its_entries() {
    let server = server().await;
    let mut client = entries(&server).await;
    let attributes =
        types::entry::AdditionalAttributes { jwt_svid_include_jti: true, ..Default::default() };
    let own = types::Entry {
        jwt_svid_ttl: 60,
        additional_attributes: Some(attributes),
        ..entry("/w", 1)
    };
    let own = created(&mut client, own).await;
    let agent = agent(&server).await;
    let mut client = svids(server.channel(Some(&agent)).await).await;
    let request =
        NewJwtsvidRequest { entry_id: own.id.clone(), audience: vec!["a".into(), "b".into()] };
    let svid = client.new_jwtsvid(request).await.unwrap().into_inner().svid.unwrap();
    let now = server.clock.now();
    assert_eq!((svid.expires_at, svid.issued_at), (now.as_second() + 60, now.as_second()));
    let bundle = Arc::new(own_bundle(&server).await);
    for audience in ["a", "b"] {
        let verified =
            jwt::verify(&svid.token, audience, |_: &TrustDomain| Some(bundle.clone()), now);
        let verified = verified.unwrap();
        assert_eq!(verified.id, spiffe_id("spiffe://example.org/w"));
        assert!(verified.claims.contains_key("jti"));
        assert_eq!(verified.claims["sub"], "spiffe://example.org/w");
        assert_eq!(verified.claims["aud"], serde_json::json!(["a", "b"]));
        assert_eq!(verified.claims["exp"].as_i64(), Some(svid.expires_at));
    }

    let mut ask = async |entry_id: &str, audience: &[&str]| {
        let audience = audience.iter().map(|text| (*text).to_owned()).collect();
        let request = NewJwtsvidRequest { entry_id: entry_id.to_owned(), audience };
        refused(client.new_jwtsvid(request).await)
    };
    let not_found = (Code::NotFound, "entry not found or not authorized".to_owned());
    assert_eq!(ask("", &["a"]).await, not_found);
    assert_eq!(ask("unknown", &["a"]).await, not_found);
    let none = (Code::InvalidArgument, "at least one audience is required".to_owned());
    assert_eq!(ask(&own.id, &[]).await, none);
    assert_eq!(ask(&own.id, &[""]).await.0, Code::InvalidArgument);
    assert_eq!(ask(&own.id, &["a"; 101]).await.0, Code::InvalidArgument);
    assert_eq!(ask(&own.id, &["a".repeat(4097).as_str()]).await.0, Code::InvalidArgument);
    server.stop().await;
}

#[tokio::test]
async fn operators_mint_svids_within_the_rules() {
    let server = server().await;
    let mut client = svids(server.operator().await).await;
    let names = ["first.test".parse().unwrap(), "second.test".parse().unwrap()];
    let minted_id = spiffe_id("spiffe://example.org/minted");
    let csr_with_names =
        mint_request(&*key(), &Subject::default(), &names, &minted_id).await.unwrap();
    let request = MintX509svidRequest { csr: csr_with_names, ttl: 77 };
    let svid = client.mint_x509svid(request).await.unwrap().into_inner().svid.unwrap();
    let now = server.clock.now();
    assert_eq!((svid.id, svid.expires_at), (id("/minted"), now.as_second() + 77));
    verify(&svid.cert_chain, &own_bundle(&server).await, now).unwrap();

    let mut mint = async |csr: Bytes, ttl: i32| {
        refused(client.mint_x509svid(MintX509svidRequest { csr, ttl }).await)
    };
    let invalid = |sentence: &str| (Code::InvalidArgument, sentence.to_owned());
    assert_eq!(mint(Bytes::new(), 0).await, invalid("missing CSR"));
    assert_eq!(
        mint(csr("spiffe://example.org/w").await, -1).await,
        invalid("ttl must not be negative, but is -1")
    );
    let without_id = TestAgent::new().csr().await;
    assert_eq!(mint(without_id, 0).await, invalid("CSR URI SAN is required"));
    for (uri, sentence) in [
        (
            "spiffe://o.org/m",
            "\"spiffe://o.org/m\" is not a member of trust domain \"example.org\"",
        ),
        (
            "spiffe://example.org",
            "\"spiffe://example.org\" is not a workload in trust domain \"example.org\"; path is \
             empty",
        ),
        (
            "spiffe://example.org/spire/server",
            "\"spiffe://example.org/spire/server\" is not a workload in trust domain \
             \"example.org\"; path is in the reserved namespace",
        ),
    ] {
        let expected = format!("CSR URI SAN is invalid: {sentence}");
        assert_eq!(mint(csr(uri).await, 0).await, invalid(&expected));
    }
    server.stop().await;
}

#[tokio::test]
async fn operators_mint_tokens_within_the_rules() {
    let server = server().await;
    let mut client = svids(server.operator().await).await;
    let request = |path: &str, audience: &[&str], ttl| MintJwtsvidRequest {
        id: id(path),
        audience: audience.iter().map(|text| (*text).to_owned()).collect(),
        ttl,
    };
    let svid = client.mint_jwtsvid(request("/m", &["a"], 33)).await.unwrap().into_inner().svid;
    let svid = svid.unwrap();
    assert_eq!(svid.expires_at, server.clock.now().as_second() + 33);
    assert_eq!(svid.id, id("/m"));

    let mut mint = async |request| refused(client.mint_jwtsvid(request).await);
    let (code, sentence) = mint(request("", &["a"], 0)).await;
    assert_eq!(code, Code::InvalidArgument);
    assert!(sentence.starts_with("invalid SPIFFE ID: ") && sentence.ends_with("path is empty"));
    assert_eq!(mint(request("/m", &[], 0)).await.1, "at least one audience is required");
    assert_eq!(mint(request("/m", &[""], 0)).await.0, Code::InvalidArgument);
    assert_eq!(mint(request("/m", &["a"], -5)).await.0, Code::InvalidArgument);
    let nobody = MintJwtsvidRequest { id: None, ..request("/m", &["a"], 0) };
    assert_eq!(mint(nobody).await.1, "invalid SPIFFE ID: request must specify SPIFFE ID");
    server.stop().await;
}

#[tokio::test]
async fn without_jwt_svids_their_methods_do_not_exist() {
    let server = TestServer::start("disable_jwt_svids = true").await;
    let mut client = svids(server.operator().await).await;
    let request = MintJwtsvidRequest { id: id("/m"), audience: vec!["a".into()], ttl: 0 };
    assert_eq!(
        refused(client.mint_jwtsvid(request).await),
        (Code::Unimplemented, "JWT functionality is disabled".to_owned())
    );
    let request = MintWitsvidRequest::default();
    assert_eq!(refused(client.mint_witsvid(request).await).0, Code::Unimplemented);
    server.stop().await;
}

#[tokio::test]
async fn a_server_below_gets_a_ca_and_publishes_its_keys() {
    let server = server().await;
    let mut client = entries(&server).await;
    created(&mut client, types::Entry { downstream: true, ..entry("/below", 1) }).await;
    let holder = key();
    let csr = workload_request(&*holder, &spiffe_id("spiffe://example.org/below")).await.unwrap();
    let mut operator = svids(server.operator().await).await;
    let minted = operator.mint_x509svid(MintX509svidRequest { csr, ttl: 0 }).await.unwrap();
    let chain = minted.into_inner().svid.unwrap().cert_chain;
    let svid = spire_core::svid::x509::X509Svid::from_chain(chain).unwrap();
    let channel = server.channel(Some(&Identity::new(svid, holder))).await;
    let mut client = svids(channel.clone()).await;

    let ca_key = key();
    let domain = harness::trust_domain();
    let csr = ca_request(&*ca_key, &domain, &Subject::default()).await.unwrap();
    let request = NewDownstreamX509caRequest { csr, preferred_ttl: 600 };
    let answer = client.new_downstream_x509ca(request).await.unwrap().into_inner();
    let bundle = own_bundle(&server).await;
    let roots: Vec<_> = bundle.x509_authorities.iter().map(|one| one.certificate.clone()).collect();
    assert_eq!(answer.x509_authorities, roots);
    let below = Issuer::intermediate(answer.ca_cert_chain, ca_key).unwrap();
    let now: Timestamp = server.clock.now();
    assert_eq!(below.expires_at().as_second(), now.as_second() + 600);
    let leaf_key = CertificateRequest::parse(&csr_of_leaf().await).unwrap().public_key;
    let leaf = LeafTemplate {
        id: &spiffe_id("spiffe://example.org/w"),
        public_key: &leaf_key,
        dns_names: &[],
        subject: None,
        ttl: std::time::Duration::from_secs(10),
    };
    verify(&below.sign_leaf(&leaf, now).await.unwrap().chain, &bundle, now).unwrap();

    let request = NewDownstreamX509caRequest { csr: Bytes::from_static(b"x"), preferred_ttl: 0 };
    let (code, sentence) = refused(client.new_downstream_x509ca(request).await);
    assert_eq!(code, Code::InvalidArgument);
    assert!(sentence.starts_with("malformed CSR: "), "{sentence}");

    use spire_core::wire::bundle::PublishJwtAuthorityRequest;
    let mut client = BundleClient::new(channel);
    let published = types::JwtKey {
        public_key: leaf_key,
        key_id: "below".into(),
        expires_at: now.as_second() + 600,
        tainted: false,
    };
    let request = PublishJwtAuthorityRequest { jwt_authority: Some(published.clone()) };
    let keys = client.publish_jwt_authority(request).await.unwrap().into_inner().jwt_authorities;
    assert!(keys.contains(&published) && keys.len() == 2);
    let nothing = client.publish_jwt_authority(PublishJwtAuthorityRequest::default()).await;
    assert_eq!(refused(nothing), (Code::InvalidArgument, "missing JWT authority".to_owned()));
    server.stop().await;
}

async fn csr_of_leaf() -> Bytes {
    csr("spiffe://example.org/w").await
}
