//! How old a machine may be that attests.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use spire_core::node::AttestError;

/// Makes sure that a machine was made no longer than `limit` ago.
pub(crate) fn check(
    created: Option<Timestamp>,
    limit: Duration,
    now: Timestamp,
) -> Result<(), AttestError> {
    let refused = |why: String| Err(AttestError::Refused(why));
    let Some(created) = created else {
        return refused("Azure does not say when the machine was made".to_owned());
    };
    let limit = SignedDuration::try_from(limit).unwrap_or(SignedDuration::MAX);
    if now.duration_since(created) > limit {
        return refused(format!("the machine was made at {created}, longer ago than allowed"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_as_young_as_allowed_or_refused() {
        let made = Timestamp::UNIX_EPOCH;
        let hour = Duration::from_secs(3600);
        check(Some(made), hour, made + hour).unwrap();
        check(Some(made), hour, made + hour + Duration::from_secs(1)).unwrap_err();
        check(None, hour, made).unwrap_err();
    }
}
