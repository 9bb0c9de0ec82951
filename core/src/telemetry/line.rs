//! One line of the log, in its three forms.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use jiff::ZonedDateTime;
use jiff::fmt::strtime;
use tracing::Level;

/// The value of a field.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(String),
    Bool(bool),
    Integer(i128),
}

/// Named values in alphabetical order; `message` among them.
#[derive(Debug, Clone, Default)]
pub(super) struct Fields(BTreeMap<&'static str, Value>);

impl Fields {
    pub(super) fn set(&mut self, name: &'static str, value: Value) {
        self.0.insert(name, value);
    }

    pub(super) fn extend(&mut self, other: &Self) {
        self.0.extend(other.0.iter().map(|(name, value)| (*name, value.clone())));
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    Pairs { nanoseconds: bool },
    Terminal,
    Json,
}

pub(super) struct Line {
    pub(super) time: ZonedDateTime,
    pub(super) since_start: Duration,
    pub(super) level: Level,
    pub(super) fields: Fields,
}

/// Width of the message on a terminal, after which the fields begin.
const MESSAGE_COLUMNS: usize = 44;

impl Line {
    pub(super) fn render(mut self, form: Form) -> Vec<u8> {
        let message = match self.fields.0.remove("message") {
            Some(Value::Text(text)) => text,
            _ => String::new(),
        };
        let mut line = match form {
            Form::Pairs { nanoseconds } => self.pairs(&message, nanoseconds),
            Form::Terminal => self.terminal(&message),
            Form::Json => self.json(&message),
        };
        line.push('\n');
        line.into_bytes()
    }

    fn pairs(&self, message: &str, nanoseconds: bool) -> String {
        let mut line =
            format!("time={:?} level={} msg=", self.time(nanoseconds), self.level_name());
        push_text(&mut line, message);
        for (name, value) in &self.fields.0 {
            let _ = write!(line, " {}=", field_name(name));
            push_value(&mut line, value);
        }
        line
    }

    fn terminal(&self, message: &str) -> String {
        let (word, colour) = match self.level {
            Level::ERROR => ("ERRO", 31),
            Level::WARN => ("WARN", 33),
            Level::INFO => ("INFO", 36),
            Level::DEBUG => ("DEBU", 37),
            Level::TRACE => ("TRAC", 37),
        };
        let seconds = self.since_start.as_secs();
        let message = printable(message);
        let mut line =
            format!("\x1b[{colour}m{word}\x1b[0m[{seconds:04}] {message:<MESSAGE_COLUMNS$}");
        for (name, value) in &self.fields.0 {
            let _ = write!(line, " \x1b[{colour}m{}\x1b[0m=", field_name(name));
            push_value(&mut line, value);
        }
        line
    }

    fn json(&self, message: &str) -> String {
        let mut object = BTreeMap::new();
        for (name, value) in &self.fields.0 {
            let value = match value {
                Value::Text(text) => text.as_str().into(),
                Value::Bool(value) => (*value).into(),
                Value::Integer(value) => {
                    i64::try_from(*value).map_or_else(|_| value.to_string().into(), Into::into)
                }
            };
            object.insert(field_name(name), value);
        }
        object.insert("time".into(), serde_json::Value::from(self.time(true)));
        object.insert("level".into(), self.level_name().into());
        object.insert("msg".into(), message.into());
        serde_json::to_string(&object).unwrap_or_default()
    }

    fn time(&self, nanoseconds: bool) -> String {
        let zone = if self.time.offset().is_zero() { "Z" } else { "%:z" };
        let fraction = if nanoseconds { "%.f" } else { "" };
        strtime::format(format!("%Y-%m-%dT%H:%M:%S{fraction}{zone}"), &self.time)
            .unwrap_or_default()
    }

    fn level_name(&self) -> &'static str {
        match self.level {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        }
    }
}

/// A field that would hide one of the line's own parts is renamed, as logrus does.
fn field_name(name: &str) -> std::borrow::Cow<'static, str> {
    match name {
        "time" | "level" | "msg" => format!("fields.{name}").into(),
        _ => name.to_owned().into(),
    }
}

fn push_value(line: &mut String, value: &Value) {
    match value {
        Value::Text(text) => push_text(line, text),
        Value::Bool(value) => {
            let _ = write!(line, "{value}");
        }
        Value::Integer(value) => {
            let _ = write!(line, "{value}");
        }
    }
}

/// Writes a text bare where that is unambiguous, else quoted with everything odd escaped, so that
/// no value can forge a line.
fn push_text(line: &mut String, text: &str) {
    let is_plain = |byte: u8| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'_' | b'/' | b'@' | b'^' | b'+')
    };
    if text.bytes().all(is_plain) {
        line.push_str(text);
    } else {
        let _ = write!(line, "{text:?}");
    }
}

fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}
