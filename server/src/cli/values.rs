//! From the texts and numbers of flags to what requests hold. What is wrong is told in SPIRE's
//! words and names the flag.

use spire_core::command::Failure;
use spire_core::id::SpiffeId;
use spire_core::wire::types;

/// The ID that `flag` gives.
pub(super) fn spiffe_id(flag: &str, text: &str) -> Result<types::Spiffeid, Failure> {
    match SpiffeId::parse(text) {
        Ok(id) => Ok((&id).into()),
        Err(error) => Err(Failure::new(format!("{error} (-{flag} {text:?})"))),
    }
}

/// A number that the wire holds in 32 bits.
pub(super) fn int32(what: &str, number: i64) -> Result<i32, Failure> {
    number.try_into().map_err(|_| {
        let text = format!("invalid value for {what}: overflow converting int({number}) to int32");
        Failure::new(text)
    })
}
