//! The log: structured events as text or JSON lines, with a level that changes at run time and a
//! file that can be reopened after rotation.
//!
//! Lines have the form that operators' parsers already know from logrus: time, level and message
//! first, then the fields in alphabetical order.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use jiff::ZonedDateTime;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Metadata, Subscriber, span};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

pub use super::level::{LogFormat, LogLevel, UnknownFormat, UnknownLevel};
use super::line::{Fields, Form, Line, Value};

/// What the log is started with.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// The level at launch.
    pub level: LogLevel,
    /// The form of a line.
    pub format: LogFormat,
    /// Where lines go; `None` is the standard output.
    pub file: Option<PathBuf>,
    /// Whether each line names the place in the source that wrote it.
    pub source_location: bool,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            level: LogLevel::Info,
            format: LogFormat::Default,
            file: None,
            source_location: false,
        }
    }
}

/// The running log. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Logger(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    level: AtomicU8,
    launch_level: LogLevel,
    output: Mutex<Output>,
    path: Option<PathBuf>,
    form: Form,
    source_location: bool,
    started: Instant,
}

#[derive(Debug)]
enum Output {
    Stdout(io::Stdout),
    File(File),
}

impl Logger {
    /// Starts the log of this process.
    ///
    /// # Errors
    /// The file that cannot be opened, as `open <file>: <cause>`.
    pub fn start(settings: LogSettings) -> io::Result<Self> {
        let logger = Self::open(settings)?;
        let subscriber = tracing_subscriber::registry().with(LogLayer(logger.0.clone()));
        // A second start in one process keeps the first log, which only tests can meet.
        let _ = tracing::subscriber::set_global_default(subscriber);
        Ok(logger)
    }

    fn open(settings: LogSettings) -> io::Result<Self> {
        let output = match &settings.file {
            Some(path) => Output::File(open(path)?),
            None => Output::Stdout(io::stdout()),
        };
        let on_terminal = settings.file.is_none() && io::stdout().is_terminal();
        let form = match settings.format {
            LogFormat::Json => Form::Json,
            LogFormat::Text => Form::Pairs { nanoseconds: true },
            LogFormat::Default if on_terminal => Form::Terminal,
            LogFormat::Default => Form::Pairs { nanoseconds: false },
        };
        Ok(Self(Arc::new(Shared {
            level: AtomicU8::new(settings.level as u8),
            launch_level: settings.level,
            output: Mutex::new(output),
            path: settings.file,
            form,
            source_location: settings.source_location,
            started: Instant::now(),
        })))
    }

    /// The level in force.
    pub fn level(&self) -> LogLevel {
        self.0.level()
    }

    /// The level that the process was started with.
    pub fn launch_level(&self) -> LogLevel {
        self.0.launch_level
    }

    /// Changes the level at once.
    pub fn set_level(&self, level: LogLevel) {
        self.0.level.store(level as u8, Ordering::Relaxed);
        tracing::callsite::rebuild_interest_cache();
    }

    /// Goes back to the level of the launch.
    pub fn reset_level(&self) {
        self.set_level(self.launch_level());
    }

    /// Opens the log file anew, after something has moved the old one away. Without a file there
    /// is nothing to do.
    ///
    /// # Errors
    /// The file that cannot be opened; lines go on to the old one.
    pub fn reopen(&self) -> io::Result<()> {
        if let Some(path) = &self.0.path {
            let file = open(path)?;
            *self.0.output.lock().unwrap_or_else(PoisonError::into_inner) = Output::File(file);
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
        .map_err(|error| io::Error::new(error.kind(), format!("open {}: {error}", path.display())))
}

impl Shared {
    fn level(&self) -> LogLevel {
        LogLevel::ALL[usize::from(self.level.load(Ordering::Relaxed)).min(6)]
    }

    fn write(&self, line: &[u8]) {
        // Whoever reads the log may have gone away, which must not stop the process.
        let _ = match &mut *self.output.lock().unwrap_or_else(PoisonError::into_inner) {
            Output::Stdout(stdout) => stdout.lock().write_all(line),
            Output::File(file) => file.write_all(line),
        };
    }
}

struct LogLayer(Arc<Shared>);

/// Libraries below us speak only when something is wrong.
fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("spire")
}

impl<S> Layer<S> for LogLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn register_callsite(
        &self,
        metadata: &'static Metadata<'static>,
    ) -> tracing::subscriber::Interest {
        if self.passes(metadata) {
            tracing::subscriber::Interest::always()
        } else {
            tracing::subscriber::Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.passes(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.0.level().filter())
    }

    fn on_new_span(
        &self,
        attributes: &span::Attributes<'_>,
        id: &span::Id,
        context: Context<'_, S>,
    ) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut Recorder(&mut fields));
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(&mut Recorder(fields));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(inherited) = span.extensions().get::<Fields>() {
                fields.extend(inherited);
            }
        }
        event.record(&mut Recorder(&mut fields));
        let metadata = event.metadata();
        if self.0.source_location {
            let file = metadata.file().and_then(|path| path.rsplit('/').next()).unwrap_or("?");
            let place = format!("{file}:{}", metadata.line().unwrap_or_default());
            fields.set("file", Value::Text(place));
            let function = metadata.module_path().unwrap_or_default();
            fields.set("func", Value::Text(function.to_owned()));
        }
        let line = Line {
            time: ZonedDateTime::now(),
            since_start: self.0.started.elapsed(),
            level: *metadata.level(),
            fields,
        };
        self.0.write(&line.render(self.0.form));
    }
}

impl LogLayer {
    fn passes(&self, metadata: &Metadata<'_>) -> bool {
        let level = self.0.level().filter();
        let level = if is_ours(metadata) { level } else { level.min(LevelFilter::WARN) };
        *metadata.level() <= level
    }
}

struct Recorder<'f>(&'f mut Fields);

impl Visit for Recorder<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.set(field.name(), Value::Text(value.to_owned()));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.set(field.name(), Value::Bool(value));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.set(field.name(), Value::Integer(value.into()));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.set(field.name(), Value::Integer(value.into()));
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.0.set(field.name(), Value::Text(with_causes(value)));
    }
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.set(field.name(), Value::Text(format!("{value:?}")));
    }
}

/// An error with what caused it, as one sentence: `outer: inner: innermost`. What an error says of its
/// cause itself is not said twice.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(settings: LogSettings, act: impl FnOnce(&Logger)) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let logger = Logger::open(LogSettings { file: Some(path.clone()), ..settings }).unwrap();
        let subscriber = tracing_subscriber::registry().with(LogLayer(logger.0.clone()));
        tracing::subscriber::with_default(subscriber, || act(&logger));
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn fields_follow_time_level_and_message_in_alphabetical_order() {
        let text = logged(LogSettings::default(), |_| {
            tracing::info!(network = "tcp", address = "127.0.0.1:1", count = 3, "Starting APIs");
        });
        let (time, rest) = text.split_once(" level=").unwrap();
        assert!(time.starts_with("time=\"20"), "{text}");
        assert_eq!(
            rest,
            "info msg=\"Starting APIs\" address=\"127.0.0.1:1\" count=3 network=tcp\n"
        );
    }

    #[test]
    fn json_lines_carry_types_and_the_fields_of_enclosing_spans() {
        let settings = LogSettings { format: LogFormat::Json, ..LogSettings::default() };
        let text = logged(settings, |_| {
            let _span = tracing::info_span!("call", request_id = "r1").entered();
            tracing::warn!(registered = false, count = 2, "No identity issued");
        });
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["msg"], "No identity issued");
        assert_eq!(line["level"], "warning");
        assert_eq!(line["registered"], false);
        assert_eq!(line["count"], 2);
        assert_eq!(line["request_id"], "r1");
    }

    #[test]
    fn the_level_changes_while_it_runs() {
        let text = logged(LogSettings::default(), |logger| {
            tracing::debug!("hidden");
            logger.set_level(LogLevel::Debug);
            tracing::debug!("shown");
            logger.reset_level();
            tracing::debug!("hidden again");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("msg=shown"));
    }

    #[test]
    fn lines_go_to_the_new_file_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let settings = LogSettings { file: Some(path.clone()), ..LogSettings::default() };
        let logger = Logger::open(settings).unwrap();
        std::fs::rename(&path, folder.path().join("old")).unwrap();
        logger.reopen().unwrap();
        logger.0.write(b"line\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"line\n");
    }
}
