//! The only conversions between wire messages and the vocabulary: ids, selectors and statuses here,
//! entries, bundles, SVIDs and the reasons of refusals in the modules below.

pub mod bundle;
pub mod denial;
pub mod entry;
mod entry_encoding;
mod log_level;
pub mod svid;

use jiff::Timestamp;

pub use entry_encoding::{EntryView, IdView};

use super::types;
use crate::id::{IdError, RoleError, SpiffeId, TrustDomain};
use crate::selector::{Selector, SelectorError};

/// Why an ID in a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireIdError {
    /// There is none.
    #[error("request must specify SPIFFE ID")]
    Missing,
    /// It breaks a rule of SPIFFE IDs.
    #[error(transparent)]
    Malformed(#[from] IdError),
    /// It is valid but may not stand here.
    #[error(transparent)]
    Role(#[from] RoleError),
}

/// Why a selector in a request is refused. The messages are those of SPIRE.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireSelectorError {
    /// It has no type.
    #[error("missing selector type")]
    NoType,
    /// Its type holds a colon.
    #[error("selector type contains ':'")]
    ColonInType,
    /// It has no value.
    #[error("missing selector value")]
    NoValue,
}

/// A time in a request lies outside the years 1 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no time in seconds since 1970")]
pub struct WireTimeError(pub i64);

/// Reads an ID of any trust domain.
///
/// # Errors
/// [`WireIdError`]
pub fn spiffe_id(wire: Option<&types::Spiffeid>) -> Result<SpiffeId, WireIdError> {
    let wire = wire.ok_or(WireIdError::Missing)?;
    Ok(TrustDomain::parse(&wire.trust_domain)?.member(&wire.path)?)
}

/// Reads an ID that must lie in `trust_domain`.
///
/// # Errors
/// [`WireIdError`]
pub fn member_id(
    trust_domain: &TrustDomain,
    wire: Option<&types::Spiffeid>,
) -> Result<SpiffeId, WireIdError> {
    Ok(spiffe_id(wire)?.member_of(trust_domain)?)
}

/// Reads an ID that a workload of `trust_domain` may have.
///
/// # Errors
/// [`WireIdError`]
pub fn workload_id(
    trust_domain: &TrustDomain,
    wire: Option<&types::Spiffeid>,
) -> Result<SpiffeId, WireIdError> {
    Ok(spiffe_id(wire)?.workload_of(trust_domain)?)
}

/// Reads an ID that an agent of `trust_domain` may have.
///
/// # Errors
/// [`WireIdError`]
pub fn agent_id(
    trust_domain: &TrustDomain,
    wire: Option<&types::Spiffeid>,
) -> Result<SpiffeId, WireIdError> {
    Ok(spiffe_id(wire)?.agent_of(trust_domain)?)
}

impl From<&SpiffeId> for types::Spiffeid {
    fn from(id: &SpiffeId) -> Self {
        Self { trust_domain: id.trust_domain_name().to_owned(), path: id.path().to_owned() }
    }
}

/// Reads a selector.
///
/// # Errors
/// [`WireSelectorError`] names the part that is missing or wrong.
pub fn selector(wire: &types::Selector) -> Result<Selector, WireSelectorError> {
    Selector::new(&wire.r#type, &wire.value).map_err(|error| match error {
        SelectorError::NoType | SelectorError::NoColon(_) => WireSelectorError::NoType,
        SelectorError::ColonInType(_) => WireSelectorError::ColonInType,
        SelectorError::NoValue => WireSelectorError::NoValue,
    })
}

/// Reads selectors, in the order given.
///
/// # Errors
/// [`WireSelectorError`] of the first that is wrong.
pub fn selectors(wire: &[types::Selector]) -> Result<Vec<Selector>, WireSelectorError> {
    wire.iter().map(selector).collect()
}

impl From<&Selector> for types::Selector {
    fn from(selector: &Selector) -> Self {
        Self { r#type: selector.kind().to_owned(), value: selector.value().to_owned() }
    }
}

/// Reads a time, where 0 stands for none.
///
/// # Errors
/// [`WireTimeError`]
pub fn time(seconds: i64) -> Result<Option<Timestamp>, WireTimeError> {
    match seconds {
        0 => Ok(None),
        _ => Timestamp::from_second(seconds).map(Some).map_err(|_| WireTimeError(seconds)),
    }
}

/// Writes a time, where 0 stands for none.
pub fn seconds(time: Option<Timestamp>) -> i64 {
    time.map_or(0, Timestamp::as_second)
}

/// The status of an item that went well.
pub fn ok() -> types::Status {
    types::Status { code: tonic::Code::Ok as i32, message: "OK".to_owned() }
}

impl From<&tonic::Status> for types::Status {
    fn from(status: &tonic::Status) -> Self {
        Self { code: status.code() as i32, message: status.message().to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(trust_domain: &str, path: &str) -> types::Spiffeid {
        types::Spiffeid { trust_domain: trust_domain.to_owned(), path: path.to_owned() }
    }

    #[test]
    fn an_id_survives_the_wire() {
        let id = SpiffeId::parse("spiffe://td/a/b").unwrap();
        assert_eq!(spiffe_id(Some(&types::Spiffeid::from(&id))), Ok(id));
    }

    #[test]
    fn a_trust_domain_cannot_smuggle_a_path() {
        assert!(spiffe_id(Some(&wire("td/spire", "/server"))).is_err());
        assert!(spiffe_id(Some(&wire("td", "server"))).is_err());
        assert!(spiffe_id(Some(&wire("", "/w"))).is_err());
    }

    #[test]
    fn an_absent_id_is_named() {
        assert_eq!(spiffe_id(None).unwrap_err().to_string(), "request must specify SPIFFE ID");
    }

    #[test]
    fn an_id_of_2048_bytes_passes_and_one_more_does_not() {
        let longest = "a".repeat(2048 - "spiffe://td/".len());
        assert!(spiffe_id(Some(&wire("td", &format!("/{longest}")))).is_ok());
        assert!(spiffe_id(Some(&wire("td", &format!("/{longest}a")))).is_err());
    }

    #[test]
    fn each_part_of_a_selector_is_named() {
        let broken = |kind: &str, value: &str| {
            let wire = types::Selector { r#type: kind.to_owned(), value: value.to_owned() };
            selector(&wire).unwrap_err().to_string()
        };
        assert_eq!(broken("", "x"), "missing selector type");
        assert_eq!(broken("a:b", "x"), "selector type contains ':'");
        assert_eq!(broken("unix", ""), "missing selector value");
    }
}
