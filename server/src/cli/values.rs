//! From the texts and numbers of flags to what requests hold. What is wrong is told in SPIRE's
//! words and names the flag.

use std::fmt;

use spire_core::command::Failure;
use spire_core::grpc::code_name;
use spire_core::id::{IdError, SpiffeId};
use spire_core::wire::types;
use spire_core::wire::types::selector_match::MatchBehavior;
use tonic::Code;

/// The ID that `flag` gives.
pub(super) fn spiffe_id(flag: &str, text: &str) -> Result<SpiffeId, Failure> {
    SpiffeId::parse(text).map_err(|error| Failure::new(format!("{error} (-{flag} {text:?})")))
}

/// The ID as requests hold it.
pub(super) fn wire_id(text: &str) -> Result<types::Spiffeid, IdError> {
    SpiffeId::parse(text).map(|id| (&id).into())
}

/// An ID of the wire as a text; what is absent is nothing.
pub(super) fn id_text(id: Option<&types::Spiffeid>) -> String {
    id.map_or_else(String::new, |id| format!("spiffe://{}{}", id.trust_domain, id.path))
}

/// A number that the wire holds in 32 bits.
pub(super) fn int32(what: &str, number: i64) -> Result<i32, Failure> {
    number.try_into().map_err(|_| {
        let text = format!("invalid value for {what}: overflow converting int({number}) to int32");
        Failure::new(text)
    })
}

/// A selector, split at its first colon; what its parts may hold is judged by the server.
pub(super) fn selector(text: &str) -> Result<types::Selector, Failure> {
    let (kind, value) = text.split_once(':').ok_or_else(|| {
        Failure::new(format!("selector {text:?} must be formatted as type:value"))
    })?;
    Ok(types::Selector { r#type: kind.to_owned(), value: value.to_owned() })
}

/// How sets are compared, which selectors and trust domains number alike on the wire.
pub(super) fn match_behavior(text: &str) -> Option<MatchBehavior> {
    match text {
        "exact" => Some(MatchBehavior::MatchExact),
        "any" => Some(MatchBehavior::MatchAny),
        "superset" => Some(MatchBehavior::MatchSuperset),
        "subset" => Some(MatchBehavior::MatchSubset),
        _ => None,
    }
}

/// `code: NotFound, msg: "entry not found"`: what the server says of one item of a batch.
pub(super) struct ItemStatus<'s>(pub(super) Option<&'s types::Status>);

impl ItemStatus<'_> {
    /// Whether the item went well.
    pub(super) fn is_ok(&self) -> bool {
        self.0.is_none_or(|status| status.code == Code::Ok as i32)
    }
}

impl fmt::Display for ItemStatus<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, message) =
            self.0.map_or((Code::Ok, ""), |status| (status.code.into(), status.message.as_str()));
        write!(formatter, "code: {}, msg: {message:?}", code_name(code))
    }
}
