//! When an SVID is to be replaced.

use jiff::{SignedDuration, Timestamp};

/// How far half the life of an SVID is shifted at most, in parts of it, so that SVIDs that were
/// issued together are not renewed together.
const SPREAD: f64 = 0.1;
/// The target for availability counts only where SVIDs live longer than it by more than this.
const TARGET_MARGIN: SignedDuration = SignedDuration::from_hours(12);
/// With such a target, renewals are spread over this time before it.
const TARGET_SPREAD: SignedDuration = SignedDuration::from_mins(10);

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
            _ => half_life(not_before, expires_at, jitter),
        }
    }
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
            let due = Renewal::default().due_at(at(0), at(3600), jitter);
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
        let short = at(0) + SignedDuration::from_hours(36);
        assert_eq!(renewal.due_at(at(0), short, 0.0), at(18 * 3600));
    }

    #[test]
    fn jitter_stays_within_its_bounds() {
        assert!((0..1000).all(|_| (-1.0..=1.0).contains(&jitter())));
        assert!(jitter() != jitter() || jitter() != jitter());
    }
}
