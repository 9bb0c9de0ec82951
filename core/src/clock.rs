//! A clock that tests turn.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

/// `time` without its fraction of a second: certificates, tokens and tables know no smaller unit.
pub fn whole_second(time: Timestamp) -> Timestamp {
    // Only fails for a second that `Timestamp` cannot hold, and it holds this one.
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// Where logic that depends on the time gets it from. Cheap to clone.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System,
    Turned(Arc<watch::Sender<Timestamp>>),
}

impl Clock {
    /// The machine's own clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands at `start` until [`Clock::advance`] turns it, for all its clones.
    pub fn standing_at(start: Timestamp) -> Self {
        Self(Source::Turned(Arc::new(watch::Sender::new(start))))
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => Timestamp::now(),
            Source::Turned(time) => *time.borrow(),
        }
    }

    /// Returns once `wait` has passed by this clock. The machine's clock may be set meanwhile
    /// without making a difference.
    pub fn sleep(&self, wait: Duration) -> impl Future<Output = ()> + Send + use<> {
        let source = self.0.clone();
        let until = self.now() + SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
        async move {
            match source {
                Source::System => tokio::time::sleep(wait).await,
                Source::Turned(time) => {
                    // The sender is at hand, so the wait cannot fail.
                    let _ = time.subscribe().wait_for(|now| *now >= until).await;
                }
            }
        }
    }

    /// Turns a standing clock; the system's own is left alone.
    pub fn advance(&self, by: SignedDuration) {
        if let Source::Turned(time) = &self.0 {
            time.send_modify(|now| *now += by);
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Clock({})", self.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_sleeps_by_a_standing_clock_wakes_when_it_is_turned() {
        let clock = Clock::standing_at(Timestamp::UNIX_EPOCH);
        let sleeper = tokio::spawn(clock.sleep(Duration::from_secs(60)));
        clock.advance(SignedDuration::from_secs(59));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.advance(SignedDuration::from_secs(1));
        sleeper.await.unwrap();
    }
}
