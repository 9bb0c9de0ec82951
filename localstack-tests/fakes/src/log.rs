//! A log that tests read: what our programs say in the thread of a test, and in the threads that
//! they start themselves.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, LazyLock, Mutex, Once, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{DefaultGuard, set_default, set_global_default};
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};

/// One line.
#[derive(Debug, Clone)]
pub struct Line {
    /// Its level.
    pub level: Level,
    /// Its message.
    pub message: String,
    /// Its other fields, as text.
    pub fields: BTreeMap<&'static str, String>,
}

impl Line {
    /// A field as text; empty where the line has none of that name.
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

/// What is said on this thread while this is there, from debug up. It is printed too.
#[derive(Debug)]
pub struct Log {
    lines: Lines,
    _guard: DefaultGuard,
    /// Where there is one subscriber alone, the library switches a line off for all threads if
    /// another thread, which has none, comes to it first.
    _second: Dispatch,
}

type Lines = Arc<Mutex<Vec<Line>>>;

static ELSEWHERE: LazyLock<Lines> = LazyLock::new(Lines::default);

/// Keeps and prints what is said from now on wherever no [`Log`] reads, from info up, in place of
/// the log that a program starts after this.
pub fn keep() {
    static KEPT: Once = Once::new();
    KEPT.call_once(|| {
        // Where a log was started before this, nothing is kept, and what looks for it fails.
        let _ = set_global_default(Reader { lines: ELSEWHERE.clone(), down_to: Level::INFO });
    });
}

/// What was kept: lines of all tests of this process.
pub fn kept() -> Vec<Line> {
    locked(&ELSEWHERE).clone()
}

fn locked(lines: &Lines) -> std::sync::MutexGuard<'_, Vec<Line>> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Log {
    /// Begins to read.
    pub fn read() -> Self {
        let lines = Lines::default();
        let reader = |lines| Reader { lines, down_to: Level::DEBUG };
        let _second = Dispatch::new(reader(Lines::default()));
        let _guard = set_default(reader(lines.clone()));
        Self { lines, _guard, _second }
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<Line> {
        locked(&self.lines).clone()
    }

    /// The lines so far with this message.
    pub fn with(&self, message: &str) -> Vec<Line> {
        let mut lines = self.lines();
        lines.retain(|line| line.message == message);
        lines
    }
}

struct Reader {
    lines: Lines,
    down_to: Level,
}

impl Subscriber for Reader {
    /// What libraries say is left out.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.down_to && metadata.target().starts_with("spire")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let level = *event.metadata().level();
        let mut line = Line { level, message: String::new(), fields: BTreeMap::new() };
        event.record(&mut line);
        println!("{level} {} {:?}", line.message, line.fields);
        locked(&self.lines).push(line);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            name => {
                self.fields.insert(name, value.to_owned());
            }
        }
    }
}
