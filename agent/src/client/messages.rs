//! The server's messages → the vocabulary of `core`. An agent asks for a part of each entry alone,
//! so that what the server always has is absent here.

use std::collections::BTreeSet;
use std::str::FromStr;

use bytes::Bytes;
use jiff::Timestamp;
use spire_core::bundle::{Bundle, JwtAuthority, X509Authority};
use spire_core::entry::{AdditionalAttributes, Entry, EntryId, Hint};
use spire_core::id::{SpiffeId, TrustDomain};
use spire_core::selector::{RequiredSelectors, Selector};
use spire_core::svid::x509::X509Svid;
use spire_core::wire::{svid, types};
use tonic::{Code, Status};

use super::RpcError;
use crate::cache::JwtSvid;

/// Reads an entry that `agent`, its parent as far as this node is concerned, may serve.
///
/// # Errors
/// The sentence names the member that cannot be read.
pub fn entry_from_wire(message: types::Entry, agent: &SpiffeId) -> Result<Entry, String> {
    let id = EntryId::from_str(&message.id).map_err(|error| error.to_string())?;
    let selectors = message
        .selectors
        .iter()
        .map(|selector| Selector::new(&selector.r#type, &selector.value))
        .collect::<Result<BTreeSet<_>, _>>()
        .map_err(|error| error.to_string())?;
    let federates_with = message
        .federates_with
        .iter()
        .map(|domain| TrustDomain::parse(domain))
        .collect::<Result<BTreeSet<_>, _>>()
        .map_err(|error| format!("federates with: {error}"))?;
    Ok(Entry {
        id,
        spiffe_id: spiffe_id_from_wire(message.spiffe_id)?,
        parent_id: agent.clone(),
        selectors: RequiredSelectors::new(selectors).map_err(|error| error.to_string())?,
        x509_svid_ttl: 0,
        jwt_svid_ttl: 0,
        federates_with,
        dns_names: Vec::new(),
        admin: message.admin,
        downstream: message.downstream,
        store_svid: message.store_svid,
        expires_at: None,
        hint: Hint::from_str(&message.hint).map_err(|error| error.to_string())?,
        revision_number: message.revision_number,
        created_at: seconds(message.created_at)?,
        attributes: message.additional_attributes.map(|attributes| AdditionalAttributes {
            disable_x509_svid_prefetch: attributes.disable_x509_svid_prefetch,
            jwt_svid_include_jti: attributes.jwt_svid_include_jti,
        }),
    })
}

/// Reads an X.509-SVID that the server signed.
///
/// # Errors
/// [`RpcError`] where there is none, or one that is not the SVID that its message names.
pub fn x509_svid_from_wire(message: Option<types::X509svid>) -> Result<X509Svid, RpcError> {
    let message = message.ok_or_else(|| RpcError::nonsense("the server returned no X509-SVID"))?;
    // The certificates are copied: slices of the answer would keep all of it in memory.
    let chain = message.cert_chain.iter().map(|it| Bytes::copy_from_slice(it)).collect();
    let svid = X509Svid::from_chain(chain).map_err(|error| {
        RpcError::nonsense(format!("the server returned an unreadable X509-SVID: {error}"))
    })?;
    let named = spiffe_id_from_wire(message.id).map_err(RpcError::nonsense)?;
    if named != svid.id {
        let text = format!("the server returned the X509-SVID of {} as that of {named}", svid.id);
        return Err(RpcError::nonsense(text));
    }
    Ok(svid)
}

pub(super) fn signed_from_wire(
    result: svid::batch_new_x509svid_response::Result,
) -> Result<X509Svid, RpcError> {
    match result.status {
        Some(status) if status.code != 0 => {
            Err(Status::new(Code::from_i32(status.code), status.message).into())
        }
        _ => x509_svid_from_wire(result.svid),
    }
}

pub(super) fn jwt_svid_from_wire(message: Option<types::Jwtsvid>) -> Result<JwtSvid, RpcError> {
    let message = message.ok_or_else(|| RpcError::nonsense("the server returned no JWT-SVID"))?;
    Ok(JwtSvid {
        spiffe_id: spiffe_id_from_wire(message.id).map_err(RpcError::nonsense)?,
        token: message.token.into(),
        issued_at: seconds(message.issued_at).map_err(RpcError::nonsense)?,
        expires_at: seconds(message.expires_at).map_err(RpcError::nonsense)?,
    })
}

pub(super) fn bundle_from_wire(message: types::Bundle) -> Result<Bundle, RpcError> {
    let jwt_authority = |key: types::JwtKey| {
        let expires_at = match key.expires_at {
            0 => None,
            at => Some(seconds(at).map_err(RpcError::nonsense)?),
        };
        Ok(JwtAuthority {
            key_id: key.key_id,
            public_key: Bytes::copy_from_slice(&key.public_key),
            expires_at,
            tainted: key.tainted,
        })
    };
    let x509_authority = |certificate: types::X509Certificate| X509Authority {
        certificate: Bytes::copy_from_slice(&certificate.asn1),
        tainted: certificate.tainted,
    };
    Ok(Bundle {
        trust_domain: TrustDomain::parse(&message.trust_domain)
            .map_err(|error| RpcError::nonsense(format!("bundle: {error}")))?,
        x509_authorities: message.x509_authorities.into_iter().map(x509_authority).collect(),
        jwt_authorities: message
            .jwt_authorities
            .into_iter()
            .map(jwt_authority)
            .collect::<Result<_, RpcError>>()?,
        refresh_hint: u32::try_from(message.refresh_hint).unwrap_or_default(),
        sequence_number: message.sequence_number,
    })
}

fn spiffe_id_from_wire(message: Option<types::Spiffeid>) -> Result<SpiffeId, String> {
    let message = message.ok_or("SPIFFE ID is missing")?;
    TrustDomain::parse(&message.trust_domain)
        .and_then(|domain| domain.member(&message.path))
        .map_err(|error| format!("SPIFFE ID: {error}"))
}

fn seconds(seconds: i64) -> Result<Timestamp, String> {
    Timestamp::from_second(seconds).map_err(|_| format!("{seconds} is no time"))
}
