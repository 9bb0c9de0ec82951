//! One call for all who wait for the same thing.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};

/// A call that is under way at most once. It ends with the last of those who wait for it.
pub struct Flight<T: Clone> {
    under_way: Mutex<Option<WeakShared<BoxFuture<'static, T>>>>,
}

impl<T: Clone> Default for Flight<T> {
    fn default() -> Self {
        Self { under_way: Mutex::new(None) }
    }
}

impl<T: Clone> fmt::Debug for Flight<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Flight").finish_non_exhaustive()
    }
}

impl<T: Clone> Flight<T> {
    /// Waits for the call that is under way, or begins one.
    pub fn join(
        &self,
        begin: impl FnOnce() -> BoxFuture<'static, T>,
    ) -> Shared<BoxFuture<'static, T>> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let running = under_way.as_ref().and_then(WeakShared::upgrade);
        if let Some(call) = running.filter(|call| call.peek().is_none()) {
            return call;
        }
        let call = begin().shared();
        *under_way = call.downgrade();
        call
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures::future::join_all;

    use super::*;

    #[derive(Default)]
    struct Counter {
        flight: Flight<usize>,
        calls: Arc<AtomicUsize>,
    }

    impl Counter {
        fn get(&self) -> Shared<BoxFuture<'static, usize>> {
            let calls = self.calls.clone();
            self.flight.join(move || {
                async move {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    calls.fetch_add(1, Ordering::Relaxed) + 1
                }
                .boxed()
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_while_a_call_is_under_way_shares_it() {
        let counter = Counter::default();
        assert_eq!(join_all((0..9).map(|_| counter.get())).await, [1; 9]);
        assert_eq!(counter.get().await, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_nobody_waits_for_ends_and_one_left_by_its_beginner_goes_on() {
        let counter = Counter::default();
        let (first, second) = (counter.get(), counter.get());
        drop(first);
        assert_eq!(second.await, 1);
        let mut left = counter.get();
        assert!(futures::poll!(&mut left).is_pending());
        drop(left);
        assert_eq!(counter.get().await, 2);
    }
}
