//! How long to wait after a failure, and after the next one.

use std::time::Duration;

use crate::rotation::due::spread;

/// How much longer the next wait is.
const FACTOR: f64 = 1.5;

/// Waits that grow with each failure, each a tenth longer or shorter at random.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    next: Duration,
    longest: Duration,
}

impl Backoff {
    /// Waits from `first` on, up to `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, next: first, longest }
    }

    /// How long to wait after one more failure.
    pub fn after_failure(&mut self) -> Duration {
        let wait = spread(self.next);
        self.next = self.next.mul_f64(FACTOR).min(self.longest);
        wait.min(self.longest)
    }

    /// Begins again: something succeeded.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_limit_and_begin_again() {
        let mut backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(20));
        let mut within = |low: f64, high: f64| {
            let wait = backoff.after_failure().as_secs_f64();
            assert!((low..=high).contains(&wait), "{wait} is not from {low} to {high}");
        };
        within(4.5, 5.5);
        within(6.7, 8.3);
        within(10.1, 12.4);
        within(15.1, 18.6);
        within(18.0, 20.0);
        backoff.reset();
        assert!(backoff.after_failure() < Duration::from_secs(6));
    }
}
