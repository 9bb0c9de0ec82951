//! How old an instance may be that attests.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::AttestError;

/// How far an instance may seem to be created in the future, by clocks that differ.
const LEEWAY: SignedDuration = SignedDuration::from_secs(60);

/// Makes sure that an instance was created no longer than `max_instance_age` ago.
///
/// # Errors
/// `Refused` where it is older, where its time lies ahead, and where nothing is known of it.
pub fn check_age(
    created: Option<Timestamp>,
    max_instance_age: Duration,
    now: Timestamp,
) -> Result<(), AttestError> {
    let Some(created) = created else {
        let error = "it is not known when the instance was created, which max_instance_age needs";
        return Err(AttestError::Refused(error.to_owned()));
    };
    let limit = SignedDuration::try_from(max_instance_age).unwrap_or(SignedDuration::MAX);
    if (-LEEWAY..=limit).contains(&now.duration_since(created)) {
        return Ok(());
    }
    Err(AttestError::Refused(format!(
        "the instance was created at {created}, which max_instance_age ({limit:#}) does not allow"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_as_young_as_allowed_or_refused() {
        let created = Timestamp::UNIX_EPOCH;
        let check = |seconds: i64| {
            let now = created + SignedDuration::from_secs(seconds);
            check_age(Some(created), Duration::from_secs(3600), now)
        };
        for young in [0, 3600, -60] {
            check(young).unwrap();
        }
        for other in [3601, -61] {
            let error = check(other).unwrap_err().to_string();
            assert!(error.contains("max_instance_age (1h)"), "{error}");
        }
        check_age(None, Duration::MAX, created).unwrap_err();
        check_age(Some(created), Duration::MAX, Timestamp::MAX).unwrap();
    }
}
