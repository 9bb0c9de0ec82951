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
    shares: Shares<K>,
    each: usize,
}

/// What each origin has of the room, as long as it has some or waits for it.
type Shares<K> = Arc<Mutex<HashMap<K, Arc<Semaphore>>>>;

impl<K: Clone + Eq + Hash> Crowd<K> {
    /// Room for `all`, and for so many of `each` origin.
    pub fn new(all: usize, each: usize) -> Self {
        Self { room: Arc::new(Semaphore::new(all)), shares: Arc::default(), each }
    }

    /// Waits until one more connection may be open at all.
    pub async fn room(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.room).acquire_owned().await.expect(NEVER_CLOSED)
    }

    /// Lets one in at once, if there is room for it at all and for its origin.
    pub fn enter(&self, origin: K) -> Option<Place<K>> {
        let room = Arc::clone(&self.room).try_acquire_owned().ok()?;
        self.admit(origin, room)
    }

    /// Lets one in, unless too many of its origin are in.
    pub fn admit(&self, origin: K, room: OwnedSemaphorePermit) -> Option<Place<K>> {
        let share = self.share(origin);
        let part = share.semaphore().try_acquire_owned().ok()?;
        Some(Place { _part: part, _share: share, _room: room })
    }

    /// Lets one in when it is its turn: first come, first served, among those of its origin and then
    /// among all. Those of one origin wait for each other alone while there is room for others.
    pub async fn admit_in_turn(&self, origin: K) -> Place<K> {
        let share = self.share(origin);
        let part = share.semaphore().acquire_owned().await.expect(NEVER_CLOSED);
        let room = self.room().await;
        Place { _part: part, _share: share, _room: room }
    }

    fn share(&self, origin: K) -> Share<K> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Semaphore::new(self.each));
        let semaphore = Arc::clone(shares.entry(origin.clone()).or_insert_with(new));
        Share { origin, semaphore: Some(semaphore), shares: Arc::clone(&self.shares) }
    }
}

const NEVER_CLOSED: &str = "the semaphore is never closed";

/// The place that one of them takes, until it is dropped: its part of the share before the share.
#[derive(Debug)]
pub struct Place<K: Clone + Eq + Hash> {
    _part: OwnedSemaphorePermit,
    _share: Share<K>,
    _room: OwnedSemaphorePermit,
}

/// Somebody's hold on the share of its origin, which goes with the last who has one.
#[derive(Debug)]
struct Share<K: Clone + Eq + Hash> {
    origin: K,
    /// There until it is dropped.
    semaphore: Option<Arc<Semaphore>>,
    shares: Shares<K>,
}

impl<K: Clone + Eq + Hash> Share<K> {
    fn semaphore(&self) -> Arc<Semaphore> {
        self.semaphore.clone().expect("it is there until this is dropped")
    }
}

impl<K: Clone + Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        // Holds come and go under the lock alone: the last one sees that it is the last.
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.semaphore.take());
        if shares.get(&self.origin).is_some_and(|share| Arc::strong_count(share) == 1) {
            shares.remove(&self.origin);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn is_empty(crowd: &Crowd<u32>, all: usize) -> bool {
        crowd.shares.lock().unwrap().is_empty() && crowd.room.available_permits() == all
    }

    #[tokio::test]
    async fn one_origin_does_not_keep_another_out() {
        let crowd = Crowd::new(10, 2);
        let first = crowd.admit(1, crowd.room().await).unwrap();
        let second = crowd.admit(1, crowd.room().await).unwrap();
        assert!(crowd.admit(1, crowd.room().await).is_none());
        assert!(crowd.admit(2, crowd.room().await).is_some());
        drop(first);
        let third = crowd.enter(1);
        assert!(third.is_some() && crowd.enter(1).is_none());
        drop((second, third));
        assert!(is_empty(&crowd, 10));
    }

    #[tokio::test]
    async fn who_waits_comes_in_turn_and_whoever_gives_up_is_passed_over() {
        let crowd = Crowd::new(3, 2);
        let (first, second) = (crowd.enter(1).unwrap(), crowd.enter(1).unwrap());
        let mut gone = Box::pin(crowd.admit_in_turn(1));
        let mut waiting = Box::pin(crowd.admit_in_turn(1));
        let mut last = Box::pin(crowd.admit_in_turn(1));
        for turn in [&mut gone, &mut waiting, &mut last] {
            assert!(turn.now_or_never().is_none());
        }
        // Another origin has nobody to wait for, until all room is taken.
        let other = crowd.admit_in_turn(2).now_or_never().unwrap();
        let mut another = Box::pin(crowd.admit_in_turn(3));
        assert!((&mut another).now_or_never().is_none());
        drop(other);
        drop(another.await);

        drop(gone);
        drop(first);
        // Nobody overtakes.
        assert!((&mut last).now_or_never().is_none() && crowd.enter(1).is_none());
        let waiting = waiting.now_or_never().unwrap();
        assert!((&mut last).now_or_never().is_none());
        drop(second);
        drop((waiting, last.now_or_never().unwrap()));
        assert!(is_empty(&crowd, 3));
    }

    #[tokio::test]
    async fn nothing_is_left_of_those_who_gave_up() {
        let crowd = Crowd::new(1, 1);
        let place = crowd.enter(1).unwrap();
        let mut waiting = Box::pin(crowd.admit_in_turn(1));
        let mut other = Box::pin(crowd.admit_in_turn(2));
        assert!((&mut waiting).now_or_never().is_none() && (&mut other).now_or_never().is_none());
        drop(place);
        drop((waiting, other));
        assert!(is_empty(&crowd, 1));
    }
}
