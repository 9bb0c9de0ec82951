//! What is logged while a test looks.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{DefaultGuard, set_default};
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};

/// The sentences of warnings and errors that were logged on this thread since it is there.
pub(super) struct Warnings {
    seen: Arc<Mutex<Vec<String>>>,
    _guard: DefaultGuard,
    /// Where there is one subscriber alone, the library switches a sentence off for all threads if
    /// another thread, which has none, comes to it first.
    _second: Dispatch,
}

impl Warnings {
    pub(super) fn collect() -> Self {
        let seen = Arc::default();
        let _second = Dispatch::new(Collector(Arc::default()));
        let _guard = set_default(Collector(Arc::clone(&seen)));
        Self { seen, _guard, _second }
    }

    /// How many begin so.
    pub(super) fn count(&self, start: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|seen| seen.starts_with(start)).count()
    }
}

struct Collector(Arc<Mutex<Vec<String>>>);

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Sentence(&self.0));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Sentence<'s>(&'s Mutex<Vec<String>>);

impl Visit for Sentence<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.0.lock().unwrap().push(format!("{value:?}"));
        }
    }
}
