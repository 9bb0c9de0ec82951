//! The own bundle and federated ones.

use spire_core::wire::bundle::batch_delete_federated_bundle_request::Mode;
use spire_core::wire::bundle::bundle_client::BundleClient;
use spire_core::wire::bundle::*;

use super::*;

async fn bundles(server: &TestServer) -> BundleClient<Channel> {
    BundleClient::new(server.operator().await)
}

async fn own(client: &mut BundleClient<Channel>) -> types::Bundle {
    client.get_bundle(GetBundleRequest::default()).await.unwrap().into_inner()
}

/// A foreign bundle with the authorities of this server's own.
async fn foreign(client: &mut BundleClient<Channel>, trust_domain: &str) -> types::Bundle {
    types::Bundle {
        trust_domain: trust_domain.into(),
        refresh_hint: 60,
        sequence_number: 7,
        ..own(client).await
    }
}

async fn set(client: &mut BundleClient<Channel>, bundle: types::Bundle) -> (Code, String) {
    let request = BatchSetFederatedBundleRequest { bundle: vec![bundle], output_mask: None };
    let answer = client.batch_set_federated_bundle(request).await.unwrap();
    said(answer.into_inner().results.remove(0).status)
}

async fn delete(client: &mut BundleClient<Channel>, name: &str, mode: Mode) -> (Code, String) {
    let request =
        BatchDeleteFederatedBundleRequest { trust_domains: vec![name.into()], mode: mode.into() };
    let answer = client.batch_delete_federated_bundle(request).await.unwrap();
    let result = answer.into_inner().results.remove(0);
    assert_eq!(result.trust_domain, name);
    said(result.status)
}

fn well() -> (Code, String) {
    (Code::Ok, "OK".to_owned())
}

#[tokio::test]
async fn everyone_reads_the_own_bundle_under_a_mask() {
    let server = server().await;
    let mut client = BundleClient::new(server.channel(None).await);
    let bundle = own(&mut client).await;
    assert_eq!(bundle.trust_domain, "example.org");
    assert_eq!((bundle.x509_authorities.len(), bundle.jwt_authorities.len()), (1, 1));
    assert_eq!((bundle.sequence_number, bundle.refresh_hint), (1, 0));
    let mask = types::BundleMask { jwt_authorities: true, ..Default::default() };
    let request = GetBundleRequest { output_mask: Some(mask) };
    let masked = client.get_bundle(request).await.unwrap().into_inner();
    assert!(masked.x509_authorities.is_empty() && masked.jwt_authorities.len() == 1);
    server.stop().await;
}

#[tokio::test]
async fn authorities_are_appended_once() {
    let server = server().await;
    let mut client = bundles(&server).await;
    let before = own(&mut client).await;
    let key = types::JwtKey { key_id: "another".into(), ..before.jwt_authorities[0].clone() };
    let request = AppendBundleRequest {
        x509_authorities: before.x509_authorities.clone(),
        jwt_authorities: vec![key.clone()],
        ..Default::default()
    };
    for _ in 0..2 {
        let after = client.append_bundle(request.clone()).await.unwrap().into_inner();
        assert_eq!(after.x509_authorities, before.x509_authorities);
        assert!(after.jwt_authorities.contains(&key) && after.jwt_authorities.len() == 2);
        assert_eq!(after.sequence_number, before.sequence_number + 1);
    }
    assert_eq!(
        refused(client.append_bundle(AppendBundleRequest::default()).await),
        (Code::InvalidArgument, "no authorities to append".to_owned())
    );
    let garbage = types::X509Certificate { asn1: "x".into(), tainted: false };
    let request = AppendBundleRequest { x509_authorities: vec![garbage], ..Default::default() };
    let (code, sentence) = refused(client.append_bundle(request).await);
    assert_eq!(code, Code::InvalidArgument);
    assert!(sentence.starts_with("failed to convert X.509 authority: "), "{sentence}");
    server.stop().await;
}

#[tokio::test]
async fn a_federated_bundle_is_created_changed_listed_and_deleted() {
    let server = server().await;
    let mut client = bundles(&server).await;
    let bundle = foreign(&mut client, "partner.test").await;
    let create =
        BatchCreateFederatedBundleRequest { bundle: vec![bundle.clone()], output_mask: None };
    let answer = client.batch_create_federated_bundle(create.clone()).await.unwrap();
    let result = answer.into_inner().results.remove(0);
    assert_eq!((said(result.status), result.bundle), (well(), Some(bundle.clone())));
    let again = client.batch_create_federated_bundle(create).await.unwrap().into_inner();
    assert_eq!(
        said(again.results[0].status.clone()),
        (Code::AlreadyExists, "bundle already exists".to_owned())
    );

    let request = BatchUpdateFederatedBundleRequest {
        bundle: vec![types::Bundle { refresh_hint: 90, ..bundle.clone() }],
        input_mask: Some(types::BundleMask { refresh_hint: true, ..Default::default() }),
        output_mask: None,
    };
    let answer = client.batch_update_federated_bundle(request).await.unwrap().into_inner();
    assert_eq!(said(answer.results[0].status.clone()), well());
    assert_eq!(answer.results[0].bundle.as_ref().unwrap().refresh_hint, 90);

    let listed = client.list_federated_bundles(ListFederatedBundlesRequest::default()).await;
    let listed = listed.unwrap().into_inner().bundles;
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].trust_domain.as_str(), listed[0].refresh_hint), ("partner.test", 90));
    let count = client.count_bundles(CountBundlesRequest {}).await.unwrap().into_inner().count;
    assert_eq!(count, 2);

    let get = |trust_domain: &str| GetFederatedBundleRequest {
        trust_domain: trust_domain.into(),
        output_mask: None,
    };
    let got = client.get_federated_bundle(get("spiffe://partner.test")).await.unwrap();
    assert_eq!(got.into_inner(), listed[0]);
    assert_eq!(delete(&mut client, "partner.test", Mode::Restrict).await, well());
    let not_found = (Code::NotFound, "bundle not found".to_owned());
    assert_eq!(delete(&mut client, "partner.test", Mode::Restrict).await, not_found);
    assert_eq!(refused(client.get_federated_bundle(get("partner.test")).await), not_found);
    let request = BatchUpdateFederatedBundleRequest { bundle: vec![bundle], ..Default::default() };
    let answer = client.batch_update_federated_bundle(request).await.unwrap().into_inner();
    assert_eq!(said(answer.results[0].status.clone()), not_found);
    server.stop().await;
}

#[tokio::test]
async fn a_bundle_that_entries_federate_with_is_deleted_as_the_mode_says() {
    let server = server().await;
    let mut client = bundles(&server).await;
    let mut entries = entries(&server).await;
    for (number, name) in ["one.test", "two.test"].into_iter().enumerate() {
        let bundle = foreign(&mut client, name).await;
        assert_eq!(set(&mut client, bundle).await, well());
        let federated = types::Entry { federates_with: vec![name.into()], ..entry("/w", number) };
        created(&mut entries, federated).await;
    }
    let (code, sentence) = delete(&mut client, "one.test", Mode::Restrict).await;
    assert_eq!(code, Code::FailedPrecondition);
    assert_eq!(
        sentence,
        "failed to delete federated bundle: datastore-sql: cannot delete bundle; federated with 1 \
         registration entries"
    );
    assert_eq!(delete(&mut client, "one.test", Mode::Dissociate).await, well());
    assert_eq!(delete(&mut client, "two.test", Mode::Delete).await, well());
    let left = entries.list_entries(ListEntriesRequest::default()).await.unwrap().into_inner();
    assert_eq!(left.entries.len(), 1);
    assert!(left.entries[0].federates_with.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn the_own_trust_domain_is_no_federated_one() {
    let server = server().await;
    let mut client = bundles(&server).await;
    let bundle = own(&mut client).await;
    let own_domain = |what: &str| {
        let sentence = format!("{what} for the server's own trust domain is not allowed");
        (Code::InvalidArgument, sentence)
    };
    assert_eq!(set(&mut client, bundle.clone()).await, own_domain("setting a federated bundle"));
    let request =
        BatchCreateFederatedBundleRequest { bundle: vec![bundle.clone()], output_mask: None };
    let answer = client.batch_create_federated_bundle(request).await.unwrap().into_inner();
    assert_eq!(said(answer.results[0].status.clone()), own_domain("creating a federated bundle"));
    let request = BatchUpdateFederatedBundleRequest { bundle: vec![bundle], ..Default::default() };
    let answer = client.batch_update_federated_bundle(request).await.unwrap().into_inner();
    assert_eq!(said(answer.results[0].status.clone()), own_domain("updating a federated bundle"));
    let request =
        GetFederatedBundleRequest { trust_domain: "example.org".into(), output_mask: None };
    assert_eq!(
        refused(client.get_federated_bundle(request).await),
        own_domain("getting a federated bundle")
    );
    assert_eq!(
        delete(&mut client, "example.org", Mode::Delete).await,
        (
            Code::InvalidArgument,
            "removing the bundle for the server trust domain is not allowed".to_owned()
        )
    );
    let (code, sentence) = delete(&mut client, "No", Mode::Delete).await;
    assert_eq!(code, Code::InvalidArgument);
    assert!(sentence.starts_with("trust domain argument is not valid: "), "{sentence}");
    server.stop().await;
}
