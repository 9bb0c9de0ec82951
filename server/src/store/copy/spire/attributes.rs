//! The rarer settings of an entry.

use prost::Message;
use spire_core::entry::AdditionalAttributes;

use super::Unfit;

/// What SPIRE keeps in `additional_attributes`.
#[derive(Clone, PartialEq, Message)]
struct Packed {
    #[prost(bool, tag = "1")]
    disable_x509_svid_prefetch: bool,
    #[prost(bool, tag = "2")]
    jwt_svid_include_jti: bool,
}

/// Reads the column, whose absence and emptiness mean the same. The second value tells whether
/// there was more in it than is known here.
pub(super) fn read(bytes: &[u8]) -> Result<(Option<AdditionalAttributes>, bool), Unfit> {
    if bytes.is_empty() {
        return Ok((None, false));
    }
    let packed = Packed::decode(bytes)
        .map_err(|error| Unfit::unreadable(format!("additional_attributes: {error}")))?;
    let Packed { disable_x509_svid_prefetch, jwt_svid_include_jti } = packed;
    let attributes = AdditionalAttributes { disable_x509_svid_prefetch, jwt_svid_include_jti };
    Ok((Some(attributes), packed.encoded_len() < bytes.len()))
}
