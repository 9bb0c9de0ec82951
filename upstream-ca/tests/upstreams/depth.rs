//! How far from its root a server may stand.

use std::sync::Arc;

use spire_core::bundle::{Bundle, X509Authority};
use spire_core::keys::SigningKey;
use spire_core::svid::x509::{CaTemplate, Issuer, LeafTemplate, Subject, self_sign_ca, verify};
use spire_core::upstream::Minted;
use spire_upstream_ca::check;

use crate::harness::{HOUR, domain, key, now};

#[tokio::test]
async fn what_is_taken_from_an_upstream_is_what_verifiers_accept() {
    let (domain, now) = (domain(), now().now());
    let root_key = Arc::new(key());
    let root = self_sign_ca(&*root_key, &domain, &Subject::of_svids(), 100 * HOUR, now).await;
    let root = root.unwrap();
    let roots = vec![X509Authority::trusted(root.clone()).unwrap()];
    let bundle = Bundle { x509_authorities: roots.clone(), ..Bundle::empty(domain.clone()) };
    let mut above = Issuer::root(root, root_key).unwrap();
    for depth in 1..=7 {
        let key = Arc::new(key());
        let public_key = key.public_key().spki.clone();
        let subject = &above.downstream_subject();
        let template =
            CaTemplate { trust_domain: &domain, public_key: &public_key, subject, ttl: HOUR };
        let chain = above.sign_ca(&template, now).await.unwrap();
        assert_eq!(chain.len(), depth);
        let minted = Minted { chain: chain.clone(), roots: roots.clone() };
        let checked = check(&minted, &public_key, &domain, now);

        let own = Issuer::intermediate(chain, key).unwrap();
        let template = LeafTemplate {
            id: &domain.member("/w").unwrap(),
            public_key: &public_key,
            dns_names: &[],
            subject: None,
            ttl: HOUR,
        };
        let svid = own.sign_leaf(&template, now).await.unwrap();
        let verified = verify(&svid.chain, &bundle, now);
        if depth <= 6 {
            checked.unwrap();
            verified.unwrap();
        } else {
            let error = checked.unwrap_err().to_string();
            assert!(error.contains("more than 6 authorities would stand"), "{error}");
            verified.unwrap_err();
        }
        above = own;
    }
}
