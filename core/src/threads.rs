//! Threads that each drive connections of their own.
//!
//! A runtime of many threads moves work to whichever is idle, and wakes one up for that with each
//! call. A call of microseconds costs less where its connection, and all that is done for it, stay
//! on one thread.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::{Builder, Handle};

use crate::tasks::Tasks;

/// A thread for each core, with a runtime for itself.
#[derive(Debug)]
pub struct Threads {
    runtimes: Vec<Handle>,
    next: AtomicUsize,
}

impl Threads {
    /// Starts the threads. They end after the last of `tasks`.
    ///
    /// # Errors
    /// What the system says where it gives no more threads or files.
    pub fn start(name: &str, tasks: &Tasks) -> io::Result<Self> {
        let count = thread::available_parallelism().map_or(1, usize::from);
        let runtimes = (0..count).map(|number| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let (handle, tasks) = (runtime.handle().clone(), tasks.clone());
            let thread = thread::Builder::new().name(format!("{name}-{number}"));
            thread.spawn(move || runtime.block_on(tasks.ended()))?;
            Ok(handle)
        });
        Ok(Self { runtimes: runtimes.collect::<io::Result<_>>()?, next: AtomicUsize::new(0) })
    }

    /// The next one in turn.
    pub fn next(&self) -> &Handle {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        &self.runtimes[next % self.runtimes.len()]
    }
}
