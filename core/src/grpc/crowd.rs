//! Bounds on the connections that are open at a time, or on the calls that are under way, so that
//! no one keeps others out.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Those that are let in: a bound for all, and one for those of each origin.
#[derive(Debug)]
pub struct Crowd<K> {
    room: Arc<Semaphore>,
    counts: Arc<Mutex<HashMap<K, usize>>>,
    each: usize,
}

impl<K: Clone + Eq + Hash> Crowd<K> {
    /// Room for `all`, and for so many of `each` origin.
    pub fn new(all: usize, each: usize) -> Self {
        Self { room: Arc::new(Semaphore::new(all)), counts: Arc::default(), each }
    }

    /// Waits until one more connection may be open at all.
    pub async fn room(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.room).acquire_owned().await.expect("the semaphore is never closed")
    }

    /// Lets one in at once, if there is room for it at all and for its origin.
    pub fn enter(&self, origin: K) -> Option<Place<K>> {
        let room = Arc::clone(&self.room).try_acquire_owned().ok()?;
        self.admit(origin, room)
    }

    /// Lets one in, unless too many of its origin are in.
    pub fn admit(&self, origin: K, room: OwnedSemaphorePermit) -> Option<Place<K>> {
        let entered = enter(&self.counts, &origin, self.each);
        entered.then(|| Place { origin, counts: Arc::clone(&self.counts), _room: room })
    }
}

fn enter<K: Clone + Eq + Hash>(
    counts: &Mutex<HashMap<K, usize>>,
    origin: &K,
    bound: usize,
) -> bool {
    let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
    let count = counts.entry(origin.clone()).or_insert(0);
    let has_room = *count < bound;
    *count += usize::from(has_room);
    has_room
}

/// The place that one of them takes.
#[derive(Debug)]
pub struct Place<K: Clone + Eq + Hash> {
    origin: K,
    counts: Arc<Mutex<HashMap<K, usize>>>,
    _room: OwnedSemaphorePermit,
}

impl<K: Clone + Eq + Hash> Place<K> {
    /// Counts this one among those of `origin` from now on, of which there may be `bound`. Says
    /// whether there was room; where there was none, it stays where it is.
    pub fn move_to(&mut self, origin: K, bound: usize) -> bool {
        if !enter(&self.counts, &origin, bound) {
            return false;
        }
        self.leave();
        self.origin = origin;
        true
    }

    fn leave(&self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.origin) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.origin);
            }
        }
    }
}

impl<K: Clone + Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_origin_does_not_keep_another_out() {
        let crowd = Crowd::new(10, 2);
        let mut first = crowd.admit(1, crowd.room().await).unwrap();
        let second = crowd.admit(1, crowd.room().await).unwrap();
        assert!(crowd.admit(1, crowd.room().await).is_none());
        assert!(crowd.admit(2, crowd.room().await).is_some());

        assert!(first.move_to(3, 1), "it is known by now who it is");
        let third = crowd.admit(1, crowd.room().await);
        assert!(third.is_some());
        assert!(crowd.admit(1, crowd.room().await).is_none());
        let mut fourth = crowd.admit(4, crowd.room().await).unwrap();
        assert!(!fourth.move_to(3, 1));
        drop((first, second, third, fourth));
        assert!(crowd.counts.lock().unwrap().is_empty());
        assert_eq!(crowd.room.available_permits(), 10);
    }
}
