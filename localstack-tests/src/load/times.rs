//! Calls, some at a time, and how long they take.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures::future::try_join_all;

/// How long calls took, and all of them together.
#[derive(Debug)]
pub struct Times {
    /// Each call, shortest first.
    calls: Vec<Duration>,
    /// From the first call's begin to the last one's end.
    pub wall: Duration,
}

impl Times {
    /// The times of calls that were made one after the other.
    pub fn new(mut calls: Vec<Duration>) -> Self {
        calls.sort_unstable();
        Self { wall: calls.iter().sum(), calls }
    }

    /// How many calls there were.
    pub fn count(&self) -> usize {
        self.calls.len()
    }

    /// The time that this share of the calls did not exceed: 0.5 is the median.
    pub fn quantile(&self, share: f64) -> Duration {
        let last = self.calls.len().saturating_sub(1);
        let at = (self.calls.len() as f64 * share).ceil() as usize;
        self.calls.get(at.saturating_sub(1).min(last)).copied().unwrap_or_default()
    }
}

/// Makes `count` calls, numbered from 0, `parallel` at a time.
///
/// # Errors
/// That of the first call that failed.
pub async fn drive(
    count: usize,
    parallel: usize,
    call: impl AsyncFn(usize) -> Result<()>,
) -> Result<Times> {
    let next = Cell::new(0);
    let caller = async || {
        let mut times = Vec::new();
        loop {
            let number = next.get();
            if number >= count {
                return anyhow::Ok(times);
            }
            next.set(number + 1);
            let begin = Instant::now();
            call(number).await?;
            times.push(begin.elapsed());
        }
    };
    let begin = Instant::now();
    let times = try_join_all((0..parallel).map(|_| caller())).await?;
    let wall = begin.elapsed();
    Ok(Times { wall, ..Times::new(times.concat()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_times() {
        let times = Times::new((1..=200).rev().map(Duration::from_millis).collect());
        assert_eq!(times.quantile(0.5), Duration::from_millis(100));
        assert_eq!(times.quantile(0.99), Duration::from_millis(198));
        assert_eq!(times.quantile(1.0), Duration::from_millis(200));
        assert_eq!(Times::new(Vec::new()).quantile(0.5), Duration::ZERO);
    }

    #[tokio::test]
    async fn every_call_is_made_once() {
        let made = Cell::new(0);
        let times = drive(10, 3, async |number| {
            tokio::task::yield_now().await;
            made.set(made.get() | 1 << number);
            Ok(())
        });
        assert_eq!(times.await.unwrap().count(), 10);
        assert_eq!(made.get(), 0b11_1111_1111);
        assert!(drive(10, 3, async |_| anyhow::bail!("no")).await.is_err());
    }
}
