//! Many questions in one call: what is asked within a moment is asked together.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

/// A question that can be put for many keys at once.
#[async_trait]
pub trait Lookup: Send + Sync + 'static {
    /// What is asked about.
    type Key: Clone + Eq + Hash + Send + Sync + 'static;
    /// What is known of it.
    type Value: Clone + Send + Sync + 'static;
    /// Why the answer failed, for all who asked.
    type Error: Clone + Send + Sync + 'static;

    /// Asks about `keys`, each of which is there once. Keys that the answer leaves out are unknown.
    async fn look_up(
        &self,
        keys: Vec<Self::Key>,
    ) -> Result<HashMap<Self::Key, Self::Value>, Self::Error>;
}

type Answered<L> =
    Result<Arc<HashMap<<L as Lookup>::Key, <L as Lookup>::Value>>, <L as Lookup>::Error>;

/// Puts questions together that come within a moment of each other, or while as many calls as are
/// allowed are under way. Nothing runs but while somebody waits for it.
pub struct Coalescer<L: Lookup> {
    shared: Arc<Common<L>>,
}

struct Common<L: Lookup> {
    lookup: L,
    window: Duration,
    largest: usize,
    pace: Option<Pace>,
    calls: Semaphore,
    open: Mutex<Option<Batch<L>>>,
    /// When the next call would go out, were there no burst.
    due: Mutex<Option<Instant>>,
}

/// Keys that go out together.
struct Batch<L: Lookup> {
    keys: Arc<Keys<L>>,
    answer: Shared<BoxFuture<'static, Answered<L>>>,
}

struct Keys<L: Lookup> {
    set: Mutex<HashSet<L::Key>>,
    full: Notify,
}

/// How often calls go out that could take more keys: `burst` of them as they come, then one each
/// `interval`. A call that has as many keys as it can take waits for no turn.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Calls that may go out at once after a time of rest; at least 1.
    pub burst: u32,
    /// The time for which each call counts.
    pub interval: Duration,
}

impl<L: Lookup> fmt::Debug for Coalescer<L> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Coalescer").finish_non_exhaustive()
    }
}

impl<L: Lookup> Coalescer<L> {
    /// Waits `window` for more questions, asks about `largest` keys at once at most, with at most
    /// `parallel` calls under way.
    pub fn new(lookup: L, window: Duration, largest: usize, parallel: usize) -> Self {
        Self {
            shared: Arc::new(Common {
                lookup,
                window,
                largest: largest.max(1),
                pace: None,
                calls: Semaphore::new(parallel.max(1)),
                open: Mutex::new(None),
                due: Mutex::new(None),
            }),
        }
    }

    /// Lets calls go out at this pace at most, so that a long stream of questions makes few calls.
    #[must_use]
    pub fn paced(mut self, pace: Pace) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.pace = Some(pace);
        }
        self
    }

    /// What is known of `key`; `None` where nothing is.
    ///
    /// # Errors
    /// That of the call in which the question went out.
    pub async fn get(&self, key: L::Key) -> Result<Option<L::Value>, L::Error> {
        let answer = self.join(key.clone());
        Ok(answer.await?.get(&key).cloned())
    }

    /// Adds `key` to the batch that waits, or begins one.
    fn join(&self, key: L::Key) -> Shared<BoxFuture<'static, Answered<L>>> {
        let mut open = lock(&self.shared.open);
        if let Some(batch) = &*open {
            let mut keys = lock(&batch.keys.set);
            if keys.len() < self.shared.largest || keys.contains(&key) {
                keys.insert(key);
                if keys.len() >= self.shared.largest {
                    batch.keys.full.notify_one();
                }
                return batch.answer.clone();
            }
        }
        let keys = Keys { set: Mutex::new(HashSet::from([key])), full: Notify::new() };
        let keys = Arc::new(keys);
        let answer = self.shared.clone().ask(keys.clone()).boxed().shared();
        *open = Some(Batch { keys, answer: answer.clone() });
        answer
    }
}

impl<L: Lookup> Common<L> {
    async fn ask(self: Arc<Self>, keys: Arc<Keys<L>>) -> Answered<L> {
        tokio::time::sleep(self.window).await;
        tokio::select! {
            () = self.turn() => {}
            () = keys.full.notified() => {}
        }
        // The semaphore is never closed. While this waits, the batch goes on growing.
        let _call = self.calls.acquire().await;
        let keys = {
            let mut open = lock(&self.open);
            if open.as_ref().is_some_and(|batch| Arc::ptr_eq(&batch.keys, &keys)) {
                *open = None;
            }
            std::mem::take(&mut *lock(&keys.set))
        };
        self.lookup.look_up(keys.into_iter().collect()).await.map(Arc::new)
    }

    /// Waits for a turn. One batch is open at a time, so that nobody else waits meanwhile.
    async fn turn(&self) {
        let Some(Pace { burst, interval }) = self.pace else { return };
        let now = Instant::now();
        let due = lock(&self.due).unwrap_or(now).max(now);
        // Whoever comes at most `burst` calls early goes at once.
        let early = interval * burst.saturating_sub(1);
        tokio::time::sleep_until(due.checked_sub(early).unwrap_or(now)).await;
        let mut next = lock(&self.due);
        *next = Some(next.unwrap_or(now).max(Instant::now()) + interval);
    }
}

/// What is locked here is whole at any time.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::future::{join_all, pending};

    use super::*;

    /// Knows the square of small numbers and remembers how it was asked.
    #[derive(Clone, Default)]
    struct Squares {
        calls: Arc<Mutex<Vec<usize>>>,
        fails: bool,
        hangs_at_first: bool,
    }

    #[async_trait]
    impl Lookup for Squares {
        type Key = u32;
        type Value = u32;
        type Error = String;

        async fn look_up(&self, keys: Vec<u32>) -> Result<HashMap<u32, u32>, String> {
            let call = {
                let mut calls = self.calls.lock().unwrap();
                calls.push(keys.len());
                calls.len()
            };
            if self.hangs_at_first && call == 1 {
                pending::<()>().await;
            }
            if self.fails {
                return Err("throttled".to_owned());
            }
            Ok(keys.into_iter().filter(|key| *key < 1000).map(|key| (key, key * key)).collect())
        }
    }

    const WINDOW: Duration = Duration::from_millis(30);

    #[tokio::test(start_paused = true)]
    async fn what_is_asked_within_a_moment_is_one_call() {
        let squares = Squares::default();
        let calls = squares.calls.clone();
        let coalescer = Coalescer::new(squares, WINDOW, 100, 4);
        let answers = join_all((0..50).chain(0..50).map(|key| coalescer.get(key))).await;
        for (answer, key) in answers.into_iter().zip((0..50).chain(0..50)) {
            assert_eq!(answer, Ok(Some(key * key)));
        }
        assert_eq!(*calls.lock().unwrap(), [50]);
        assert_eq!(coalescer.get(5000).await, Ok(None));
        assert_eq!(*calls.lock().unwrap(), [50, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn no_call_is_larger_than_allowed() {
        let squares = Squares::default();
        let calls = squares.calls.clone();
        let coalescer = Coalescer::new(squares, WINDOW, 20, 1);
        join_all((0..50).map(|key| coalescer.get(key))).await;
        assert_eq!(*calls.lock().unwrap(), [20, 20, 10]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_of_questions_makes_calls_at_the_pace_that_is_set() {
        let squares = Squares::default();
        let calls = squares.calls.clone();
        let pace = Pace { burst: 3, interval: Duration::from_secs(6) };
        let coalescer = Coalescer::new(squares, WINDOW, 100, 4).paced(pace);
        let began = Instant::now();
        join_all((0..60).map(|second| {
            let coalescer = &coalescer;
            async move {
                tokio::time::sleep(Duration::from_secs(second)).await;
                coalescer.get(second as u32).await
            }
        }))
        .await;
        assert!(began.elapsed() < Duration::from_secs(67), "{:?}", began.elapsed());
        let (count, asked) = {
            let calls = calls.lock().unwrap();
            (calls.len(), calls.iter().sum::<usize>())
        };
        assert!(count <= 3 + 60 / 6 + 1, "{count} calls");
        assert_eq!(asked, 60);
        // As many as a call can take wait for nobody.
        let began = Instant::now();
        join_all((100..200).map(|key| coalescer.get(key))).await;
        assert_eq!(began.elapsed(), WINDOW);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_everybodys_and_not_remembered() {
        let squares = Squares { fails: true, ..Squares::default() };
        let calls = squares.calls.clone();
        let coalescer = Coalescer::new(squares, WINDOW, 100, 4);
        let answers = join_all((0..3).map(|key| coalescer.get(key))).await;
        assert!(answers.iter().all(|answer| *answer == Err("throttled".to_owned())));
        coalescer.get(1).await.unwrap_err();
        assert_eq!(*calls.lock().unwrap(), [3, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_takes_nothing_from_others() {
        let coalescer = Coalescer::new(Squares::default(), WINDOW, 100, 1);
        let mut first = Box::pin(coalescer.get(1));
        assert!(futures::poll!(&mut first).is_pending());
        let second = coalescer.get(2);
        drop(first);
        assert_eq!(second.await, Ok(Some(4)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_hangs_stops_no_other_where_several_may_run() {
        let squares = Squares { hangs_at_first: true, ..Squares::default() };
        let coalescer = Coalescer::new(squares, WINDOW, 100, 2);
        let mut first = Box::pin(coalescer.get(1));
        assert!(futures::poll!(&mut first).is_pending());
        tokio::time::advance(WINDOW * 2).await;
        assert!(futures::poll!(&mut first).is_pending());
        assert_eq!(coalescer.get(1).await, Ok(Some(1)));
    }
}
