//! Who belongs to something: a list that is read again when it is old, and a few times more when
//! somebody is not on it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use jiff::{SignedDuration, Timestamp};
use spire_core::clock::Clock;
use spire_core::remote::Flight;

use crate::api::CloudError;

/// How often a list is read again before it is old, since somebody new may not be on it yet.
/// Whoever is foreign cannot have it read more often.
const EXTRA_READS: u32 = 5;
/// How long reading may take: less than whoever asks waits, so that he learns of it.
const READ: Duration = Duration::from_secs(19);

/// Where a list comes from.
#[async_trait]
pub(crate) trait List: Send + Sync + 'static {
    /// Reads it, whole.
    async fn read(&self) -> Result<HashSet<String>, CloudError>;
}

type Read = Result<Arc<HashSet<String>>, CloudError>;

/// A list of members. However many ask at once, it is read once.
pub(crate) struct Members {
    common: Arc<Common>,
}

struct Common {
    list: Arc<dyn List>,
    good_for: SignedDuration,
    clock: Clock,
    state: Mutex<State>,
    reading: Flight<Read>,
}

#[derive(Default)]
struct State {
    members: Option<Arc<HashSet<String>>>,
    /// When the time began in which the list is good.
    since: Timestamp,
    extra_reads: u32,
}

impl Members {
    /// Members of `list`, which is good for a time.
    pub(crate) fn new(list: Arc<dyn List>, good_for: Duration, clock: Clock) -> Self {
        let good_for = SignedDuration::try_from(good_for).unwrap_or(SignedDuration::MAX);
        let (state, reading) = (Mutex::default(), Flight::default());
        Self { common: Arc::new(Common { list, good_for, clock, state, reading }) }
    }

    /// Whether `member` is on the list.
    ///
    /// # Errors
    /// Where the list cannot be read.
    pub(crate) async fn contains(&self, member: &str) -> Result<bool, CloudError> {
        let Some(known) = self.common.known() else {
            return Ok(self.common.read(false).await?.contains(member));
        };
        Ok(known.contains(member) || self.common.read(true).await?.contains(member))
    }
}

impl Common {
    /// The list, as long as it is good.
    fn known(&self) -> Option<Arc<HashSet<String>>> {
        let state = self.state();
        let old = self.clock.now().duration_since(state.since) >= self.good_for;
        state.members.clone().filter(|_| !old)
    }

    /// Reads the list, or waits with those for whom it is being read. What everybody has left is
    /// not gone on with: the next one begins anew.
    async fn read(self: &Arc<Self>, extra: bool) -> Read {
        self.reading.join(|| self.clone().reading(extra).boxed()).await
    }

    async fn reading(self: Arc<Self>, extra: bool) -> Read {
        if extra {
            let mut state = self.state();
            if let (EXTRA_READS.., Some(known)) = (state.extra_reads, &state.members) {
                return Ok(known.clone());
            }
            state.extra_reads += 1;
        }
        let read = tokio::time::timeout(READ, self.list.read()).await;
        let read = read.unwrap_or_else(|_| {
            Err(CloudError::new(format!("no answer within {} s", READ.as_secs())))
        });
        let members = Arc::new(read?);
        let mut state = self.state();
        state.members = Some(members.clone());
        if !extra {
            state.since = self.clock.now();
            state.extra_reads = 0;
        }
        Ok(members)
    }

    /// What is locked is whole at any time.
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;

    use super::*;

    #[derive(Default)]
    struct Counted {
        reads: AtomicUsize,
        fails: AtomicUsize,
    }

    #[async_trait]
    impl List for Counted {
        async fn read(&self) -> Result<HashSet<String>, CloudError> {
            self.reads.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            if self.fails.load(Ordering::SeqCst) > 0 {
                return Err(CloudError::new("throttled"));
            }
            Ok(HashSet::from(["member".to_owned()]))
        }
    }

    fn members() -> (Arc<Counted>, Members, Clock) {
        let (list, clock) = (Arc::new(Counted::default()), Clock::standing_at(Timestamp::now()));
        let members = Members::new(list.clone(), Duration::from_secs(60), clock.clone());
        (list, members, clock)
    }

    #[tokio::test]
    async fn all_who_ask_at_once_have_it_read_once() {
        let (list, members, _) = members();
        let asked = join_all((0..100).map(|_| members.contains("member"))).await;
        assert!(asked.into_iter().all(|found| found.unwrap()));
        assert_eq!(list.reads.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn strangers_have_it_read_five_times_more_at_most_until_it_is_old() {
        let (list, members, clock) = members();
        members.contains("member").await.unwrap();
        for stranger in 0..20 {
            assert!(!members.contains(&format!("stranger {stranger}")).await.unwrap());
        }
        assert_eq!(list.reads.load(Ordering::SeqCst), 6);
        clock.advance(SignedDuration::from_secs(60));
        assert!(members.contains("member").await.unwrap());
        assert_eq!(list.reads.load(Ordering::SeqCst), 7);
        assert!(!members.contains("stranger").await.unwrap());
        assert_eq!(list.reads.load(Ordering::SeqCst), 8);
    }

    #[tokio::test]
    async fn what_everybody_has_left_is_read_anew() {
        let (list, members, clock) = members();
        let mut left = Box::pin(members.contains("member"));
        assert!(futures::poll!(&mut left).is_pending());
        drop(left);
        clock.advance(SignedDuration::from_hours(1));
        assert!(members.contains("member").await.unwrap());
        assert_eq!(list.reads.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_failure_is_not_remembered() {
        let (list, members, _) = members();
        list.fails.store(1, Ordering::SeqCst);
        members.contains("member").await.unwrap_err();
        list.fails.store(0, Ordering::SeqCst);
        assert!(members.contains("member").await.unwrap());
    }
}
