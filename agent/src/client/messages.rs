//! The server's messages → the vocabulary of `core`. An agent asks for a part of each entry alone,
//! so that what the server always has is absent here.

use bytes::Bytes;
use jiff::Timestamp;
use spire_core::bundle::Bundle;
use spire_core::entry::Entry;
use spire_core::id::SpiffeId;
use spire_core::svid::x509::X509Svid;
use spire_core::wire::convert::{self, entry::WireEntryError};
use spire_core::wire::{svid, types};
use tonic::{Code, Status};

use super::RpcError;
use crate::cache::JwtSvid;

/// Reads an entry that `agent` may serve: its parent, as far as this node is concerned.
///
/// # Errors
/// [`WireEntryError`] names the member that cannot be read.
pub fn entry_from_wire(
    mut message: types::Entry,
    agent: &SpiffeId,
) -> Result<Entry, WireEntryError> {
    message.parent_id = Some(agent.into());
    convert::entry::received(&message)
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
    let named = spiffe_id_from_wire(message.id.as_ref())?;
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
        spiffe_id: spiffe_id_from_wire(message.id.as_ref())?,
        token: message.token.into(),
        issued_at: seconds(message.issued_at)?,
        expires_at: seconds(message.expires_at)?,
    })
}

pub(super) fn bundle_from_wire(message: &types::Bundle) -> Result<Bundle, RpcError> {
    convert::bundle::bundle(message)
        .map_err(|error| RpcError::nonsense(format!("the server returned no bundle: {error}")))
}

fn spiffe_id_from_wire(message: Option<&types::Spiffeid>) -> Result<SpiffeId, RpcError> {
    convert::spiffe_id(message).map_err(|error| RpcError::nonsense(format!("SPIFFE ID: {error}")))
}

fn seconds(seconds: i64) -> Result<Timestamp, RpcError> {
    Timestamp::from_second(seconds).map_err(|_| RpcError::nonsense(format!("{seconds} is no time")))
}
