//! Bounds on the connections that are open at a time, or on the calls that are under way, so that
//! no one keeps others out.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The open connections of a listener: a bound for all, and one for those of each origin that have
/// not yet proven who they are.
#[derive(Debug)]
pub struct Crowd<K> {
    room: Arc<Semaphore>,
    unproven: Arc<Mutex<HashMap<K, usize>>>,
    unproven_each: usize,
}

impl<K: Copy + Eq + Hash> Crowd<K> {
    /// Room for `all`, and for so many unproven ones of each origin.
    pub fn new(all: usize, unproven_each: usize) -> Self {
        Self { room: Arc::new(Semaphore::new(all)), unproven: Arc::default(), unproven_each }
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

    /// Lets a connection in, unless too many of its origin are unproven.
    pub fn admit(&self, origin: K, room: OwnedSemaphorePermit) -> Option<Place<K>> {
        let mut unproven = self.unproven.lock().unwrap_or_else(PoisonError::into_inner);
        let count = unproven.entry(origin).or_insert(0);
        if *count >= self.unproven_each {
            return None;
        }
        *count += 1;
        Some(Place { origin: Some(origin), unproven: Arc::clone(&self.unproven), _room: room })
    }
}

/// The place that an open connection takes.
#[derive(Debug)]
pub struct Place<K: Copy + Eq + Hash> {
    origin: Option<K>,
    unproven: Arc<Mutex<HashMap<K, usize>>>,
    _room: OwnedSemaphorePermit,
}

impl<K: Copy + Eq + Hash> Place<K> {
    /// Its peer has proven who it is.
    pub fn proven(&mut self) {
        let Some(origin) = self.origin.take() else { return };
        let mut unproven = self.unproven.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = unproven.get_mut(&origin) {
            *count -= 1;
            if *count == 0 {
                unproven.remove(&origin);
            }
        }
    }
}

impl<K: Copy + Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        self.proven();
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

        first.proven();
        let third = crowd.admit(1, crowd.room().await);
        assert!(third.is_some());
        assert!(crowd.admit(1, crowd.room().await).is_none());
        drop((first, second, third));
        assert!(crowd.unproven.lock().unwrap().is_empty());
        assert_eq!(crowd.room.available_permits(), 10);
    }
}
