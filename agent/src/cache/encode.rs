//! Answers of the Workload API, encoded.

use bytes::Bytes;
use prost::Message;
use spire_core::wire::workload::{
    JwtBundlesResponse, X509BundlesResponse, X509svid, X509svidResponse,
};
use zeroize::Zeroizing;

use super::update::{Bundles, Identity};

pub(super) fn x509_svid_response(identities: &[Identity], bundles: &Bundles) -> Bytes {
    let bundle = bundles.own.x509_der();
    let response = X509svidResponse {
        svids: identities.iter().map(|identity| svid(identity, &bundle)).collect(),
        crl: Vec::new(),
        federated_bundles: bundles
            .federated
            .iter()
            .map(|(domain, bundle)| (domain.id().to_string(), bundle.x509_der()))
            .collect(),
    };
    Bytes::from_owner(Zeroizing::new(response.encode_to_vec()))
}

fn svid(identity: &Identity, bundle: &Bytes) -> X509svid {
    let key = Zeroizing::new(identity.svid.key.as_pkcs8().to_vec());
    X509svid {
        spiffe_id: identity.entry.spiffe_id.to_string(),
        x509_svid: identity.svid.svid.chain_der(),
        x509_svid_key: Bytes::from_owner(key),
        bundle: bundle.clone(),
        hint: identity.entry.hint.as_str().to_owned(),
    }
}

pub(super) fn x509_bundles_response(bundles: &Bundles) -> Bytes {
    let bundles = bundles
        .iter()
        .map(|bundle| (bundle.trust_domain.id().to_string(), bundle.x509_der()))
        .collect();
    X509BundlesResponse { crl: Vec::new(), bundles }.encode_to_vec().into()
}

pub(super) fn jwt_bundles_response(bundles: &Bundles) -> Bytes {
    let bundles = bundles
        .iter()
        .map(|bundle| (bundle.trust_domain.id().to_string(), bundle.to_jwks().into()))
        .collect();
    JwtBundlesResponse { bundles }.encode_to_vec().into()
}
