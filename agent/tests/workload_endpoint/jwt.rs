//! JWT-SVIDs, their bundles, and their validation.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use prost_types::value::Kind;
use serde_json::Value;
use spire_core::bundle::Bundle;
use spire_core::wire::types;
use spire_core::wire::workload::{
    JwtBundlesRequest, Jwtsvid, JwtsvidRequest, ValidateJwtsvidRequest, ValidateJwtsvidResponse,
};
use tonic::{Code, Response, Status};

use super::node::{Authority, Client, Node, call};
use super::{entry, federated_with, ids, next, x509_svids};

async fn fetch(
    client: &mut Client,
    audience: &[&str],
    spiffe_id: &str,
) -> Result<Vec<Jwtsvid>, Status> {
    let audience = audience.iter().map(|name| (*name).to_owned()).collect();
    let request = JwtsvidRequest { audience, spiffe_id: spiffe_id.to_owned() };
    client.fetch_jwtsvid(call(request)).await.map(|answer| answer.into_inner().svids)
}

async fn validate(
    client: &mut Client,
    audience: &str,
    svid: &str,
) -> Result<ValidateJwtsvidResponse, Status> {
    let request = ValidateJwtsvidRequest { audience: audience.into(), svid: svid.into() };
    client.validate_jwtsvid(call(request)).await.map(Response::into_inner)
}

fn said<T: std::fmt::Debug>(result: Result<T, Status>) -> (Code, String) {
    let status = result.unwrap_err();
    (status.code(), status.message().to_owned())
}

#[tokio::test]
async fn wl_11_27_36_what_is_mandatory_is_missed() {
    let node = Node::start().await;
    node.authorize([entry("/w")]).await;
    let mut client = node.client().await;
    for audience in [&[][..], &[""]] {
        let (code, text) = said(fetch(&mut client, audience, "").await);
        assert_eq!(code, Code::InvalidArgument, "{audience:?}");
        assert!(text.starts_with("audience must be specified"), "{text}");
    }
    let invalid = |text: &str| (Code::InvalidArgument, text.to_owned());
    let missing = said(validate(&mut client, "", "a.b.c").await);
    assert_eq!(missing, invalid("audience must be specified"));
    let missing = said(validate(&mut client, "a", "").await);
    assert_eq!(missing, invalid("svid must be specified"));
}

#[tokio::test]
async fn wl_27_28_29_30_tokens_are_for_the_audience_and_the_identities_asked() {
    let node = Node::start().await;
    node.authorize(["/a", "/b", "/c"].map(entry)).await;
    let mut client = node.client().await;
    let all = fetch(&mut client, &["a", "b"], "").await.unwrap();
    let named: BTreeSet<_> = all.iter().map(|token| token.spiffe_id.as_str()).collect();
    assert_eq!((all.len(), named.len()), (3, 3));
    for token in &all {
        for audience in ["a", "b"] {
            let valid = validate(&mut client, audience, &token.svid).await.unwrap();
            assert_eq!(valid.spiffe_id, token.spiffe_id);
        }
    }
    let one = fetch(&mut client, &["a"], "spiffe://example.org/b").await.unwrap();
    assert_eq!((one.len(), one[0].spiffe_id.as_str()), (1, "spiffe://example.org/b"));
    let (code, _) = said(fetch(&mut client, &["a"], "spiffe://example.org/other").await);
    assert_eq!(code, Code::PermissionDenied);
    for malformed in ["foo", "spiffe://example.org/a//b", "https://example.org/a"] {
        let (code, text) = said(fetch(&mut client, &["a"], malformed).await);
        assert_eq!(code, Code::InvalidArgument, "{malformed}");
        assert!(text.starts_with("invalid requested SPIFFE ID: "), "{text}");
    }
}

#[tokio::test]
async fn wl_31_50_tokens_have_the_order_and_the_hints_of_certificates() {
    let node = Node::start().await;
    let hinted = |path: &str, created_at| types::Entry {
        hint: "internal".into(),
        created_at,
        ..entry(path)
    };
    node.authorize([hinted("/a", 200), hinted("/b", 100), entry("/c")]).await;
    let mut client = node.client().await;
    let certificates = next(&mut x509_svids(&mut client).await).await.unwrap();
    let tokens = fetch(&mut client, &["a"], "").await.unwrap();
    let of_tokens: Vec<_> = tokens.iter().map(|token| token.spiffe_id.as_str()).collect();
    assert_eq!(of_tokens, ids(&certificates));
    let hints: Vec<_> = tokens.iter().map(|token| token.hint.as_str()).collect();
    assert_eq!(hints, ["internal", ""]);
    let dropped = fetch(&mut client, &["a"], "spiffe://example.org/a").await;
    assert_eq!(said(dropped).0, Code::PermissionDenied);
}

#[tokio::test]
async fn wl_32_33_jwt_bundles_hold_keys_for_tokens_and_nothing_else() {
    let node = Node::start().await;
    let partner = Authority::new("partner.org").await;
    node.federate([partner.bundle()]);
    node.authorize([federated_with("partner.org", entry("/w"))]).await;
    let answers = node.client().await.fetch_jwt_bundles(call(JwtBundlesRequest {})).await;
    let bundles = next(&mut answers.unwrap().into_inner()).await.unwrap().bundles;
    let domains: BTreeSet<_> = bundles.keys().map(String::as_str).collect();
    assert_eq!(domains, BTreeSet::from(["spiffe://example.org", "spiffe://partner.org"]));
    for document in bundles.values() {
        let set: Value = serde_json::from_slice(document).unwrap();
        let [key] = &set["keys"].as_array().unwrap()[..] else { panic!("one key: {set}") };
        assert_eq!((&key["kty"], &key["kid"]), (&"EC".into(), &"kid".into()));
        let members: Vec<_> = key.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(members, ["kty", "kid", "crv", "x", "y"]);
    }
}

#[tokio::test]
async fn wl_35_37_38_41_id_26_tokens_are_checked_and_shown() {
    let node = Node::start().await;
    let partner = Authority::new("partner.org").await;
    node.federate([partner.bundle()]);
    node.authorize([federated_with("partner.org", entry("/w"))]).await;
    let mut client = node.client().await;

    let own = node.authority.token("/w", &["a"], node.clock.now()).await;
    let valid = validate(&mut client, "a", &own).await.unwrap();
    assert_eq!(valid.spiffe_id, "spiffe://example.org/w");
    let claims = valid.claims.unwrap().fields;
    assert_eq!(claims["sub"].kind, Some(Kind::StringValue(valid.spiffe_id)));
    assert!(matches!(&claims["aud"].kind, Some(Kind::ListValue(list)) if list.values.len() == 1));
    assert!(matches!(claims["exp"].kind, Some(Kind::NumberValue(_))));
    assert!(claims.contains_key("iss") && claims.contains_key("jti"));

    let foreign = partner.token("/w", &["a"], node.clock.now()).await;
    let valid = validate(&mut client, "a", &foreign).await.unwrap();
    assert_eq!(valid.spiffe_id, "spiffe://partner.org/w");
    let claims: BTreeSet<_> = valid.claims.unwrap().fields.into_keys().collect();
    assert_eq!(claims, BTreeSet::from(["aud", "exp", "sub"].map(String::from)));

    let mut forged = own.clone();
    forged.pop();
    let long_ago = node.clock.now() - SignedDuration::from_hours(2);
    let expired = node.authority.token("/w", &["a"], long_ago).await;
    for (token, audience) in [(&*forged, "a"), (&own, "b"), (&expired, "a"), ("x", "a")] {
        let (code, text) = said(validate(&mut client, audience, token).await);
        assert_eq!(code, Code::InvalidArgument, "{text}");
    }
}

#[tokio::test]
async fn claims_of_other_domains_that_the_operator_allows_are_shown() {
    let node = Node::start_with(|parts| {
        parts.allowed_foreign_jwt_claims = BTreeSet::from(["iss".to_owned()]);
    })
    .await;
    let partner = Authority::new("partner.org").await;
    node.federate([partner.bundle()]);
    node.authorize([federated_with("partner.org", entry("/w"))]).await;
    let token = partner.token("/w", &["a"], node.clock.now()).await;
    let valid = validate(&mut node.client().await, "a", &token).await.unwrap();
    let claims: BTreeSet<_> = valid.claims.unwrap().fields.into_keys().collect();
    assert_eq!(claims, BTreeSet::from(["aud", "exp", "iss", "sub"].map(String::from)));
}

#[tokio::test]
async fn wl_40_tokens_of_domains_that_the_caller_does_not_know_are_refused() {
    let node = Node::start().await;
    let partner = Authority::new("partner.org").await;
    node.federate([partner.bundle()]);
    node.authorize([entry("/w")]).await;
    let token = partner.token("/w", &["a"], node.clock.now()).await;
    let refusal = said(validate(&mut node.client().await, "a", &token).await);
    let expected = "no keys found for trust domain \"partner.org\"".to_owned();
    assert_eq!(refusal, (Code::InvalidArgument, expected));
}

#[tokio::test]
async fn bnd_12_a_bundle_that_became_empty_revokes_at_once() {
    let node = Node::start().await;
    let partner = Authority::new("partner.org").await;
    let federated = || federated_with("partner.org", entry("/w"));
    node.federate([partner.bundle()]);
    node.authorize([federated()]).await;
    let mut client = node.client().await;
    let token = partner.token("/w", &["a"], node.clock.now()).await;
    validate(&mut client, "a", &token).await.unwrap();
    let mut answers = x509_svids(&mut client).await;
    let before = next(&mut answers).await.unwrap().federated_bundles;
    assert!(!before["spiffe://partner.org"].is_empty());

    node.federate([Bundle::empty(partner.bundle().trust_domain)]);
    node.authorize([federated()]).await;
    let after = next(&mut answers).await.unwrap().federated_bundles;
    assert!(after["spiffe://partner.org"].is_empty());
    assert_eq!(said(validate(&mut client, "a", &token).await).0, Code::InvalidArgument);
}

#[tokio::test]
async fn id_17_ids_of_2048_bytes_are_served_and_validated() {
    let node = Node::start().await;
    let path = format!("/{}", "a".repeat(2048 - "spiffe://example.org/".len()));
    node.authorize([types::Entry { id: "longest".into(), ..entry(&path) }]).await;
    let mut client = node.client().await;
    let message = next(&mut x509_svids(&mut client).await).await.unwrap();
    let [id] = ids(&message)[..] else { panic!("one identity") };
    assert_eq!(id.len(), 2048);
    let tokens = fetch(&mut client, &["a"], id).await.unwrap();
    assert_eq!(validate(&mut client, "a", &tokens[0].svid).await.unwrap().spiffe_id, id);
}
