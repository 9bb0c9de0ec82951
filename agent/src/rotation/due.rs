//! When an SVID is to be replaced.

use jiff::{SignedDuration, Timestamp};

/// How far half the life of an SVID is shifted at most, in parts of it, so that SVIDs that were
/// issued together are not renewed together.
const SPREAD: f64 = 0.1;
/// The target for availability counts only where SVIDs live longer than it by more than this.
const TARGET_MARGIN: SignedDuration = SignedDuration::from_hours(12);
/// With such a target, renewals are spread over this time before it.
const TARGET_SPREAD: SignedDuration = SignedDuration::from_mins(10);

/// How far servers date `not_before` back, for clocks that differ.
const DATED_BACK: SignedDuration = SignedDuration::from_secs(10);
/// The shortest time between two SVIDs. Near the end of a CA that is not replaced, what it signs
/// lives no longer than that.
const SHORTEST_USE: SignedDuration = SignedDuration::from_secs(1);

/// The rule by which X.509-SVIDs of workloads are renewed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Renewal {
    /// For how long an SVID shall at least remain valid if the server goes away (at least 24 h);
    /// `None` leaves half of its life.
    pub availability_target: Option<SignedDuration>,
}

impl Renewal {
    /// When an SVID with this life is due. `jitter` is from -1 to 1.
    pub fn due_at(self, not_before: Timestamp, expires_at: Timestamp, jitter: f64) -> Timestamp {
        let lifetime = expires_at.duration_since(not_before);
        match self.availability_target {
            Some(target) if lifetime - target > TARGET_MARGIN => {
                let spread = TARGET_SPREAD.as_secs_f64() * (jitter + 1.0) / 2.0;
                expires_at - target - SignedDuration::from_secs_f64(spread)
            }
            _ => half_of_certificate(not_before, expires_at, jitter),
        }
    }
}

/// When half of the time from a certificate's issue to its end is over. Half of the time that it
/// states would be over at once where it lives no longer than it is dated back.
pub fn half_of_certificate(not_before: Timestamp, expires_at: Timestamp, jitter: f64) -> Timestamp {
    let issued_at = not_before + DATED_BACK;
    half_life(issued_at, expires_at, jitter).max(issued_at + SHORTEST_USE)
}

/// When half of a life is over, give or take a tenth of that half. `jitter` is from -1 to 1.
pub fn half_life(not_before: Timestamp, expires_at: Timestamp, jitter: f64) -> Timestamp {
    let half = expires_at.duration_since(not_before).as_secs_f64() / 2.0;
    expires_at - SignedDuration::from_secs_f64(half * (1.0 + SPREAD * jitter))
}

/// A random number from -1 to 1.
pub fn jitter() -> f64 {
    let mut bytes = [0; 4];
    // Without random numbers renewals are not spread, which harms nobody.
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        return 0.0;
    }
    f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX) * 2.0 - 1.0
}

/// `wait`, give or take a tenth.
pub fn spread(wait: std::time::Duration) -> std::time::Duration {
    wait.mul_f64(1.0 + SPREAD * jitter())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    #[test]
    fn an_svid_is_due_around_half_of_its_life() {
        let due_after = |jitter| {
            let due = Renewal::default().due_at(at(-10), at(3600), jitter);
            due.duration_since(at(0)).as_secs()
        };
        assert_eq!((due_after(0.0), due_after(1.0), due_after(-1.0)), (1800, 1620, 1980));
    }

    #[test]
    fn the_availability_target_counts_for_long_lives_only() {
        let day = SignedDuration::from_hours(24);
        let renewal = Renewal { availability_target: Some(day) };
        let long = at(0) + day * 4;
        assert_eq!(renewal.due_at(at(0), long, -1.0), long - day);
        assert_eq!(renewal.due_at(at(0), long, 1.0), long - day - TARGET_SPREAD);
        let short = at(0) + SignedDuration::from_hours(35);
        assert_eq!(renewal.due_at(at(-10), short, 0.0), at(35 * 1800));
    }

    #[test]
    fn an_svid_with_a_short_life_is_not_due_at_once() {
        let due_after = |life| {
            let due = Renewal::default().due_at(at(-10), at(life), 0.0);
            due.duration_since(at(0)).as_secs_f64()
        };
        assert_eq!([10, 5, 2, 1, 0].map(due_after), [5.0, 2.5, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn jitter_stays_within_its_bounds() {
        assert!((0..1000).all(|_| (-1.0..=1.0).contains(&jitter())));
        assert!(jitter() != jitter() || jitter() != jitter());
    }
}
