//! Command lines in the form that SPIRE's scripts use, which is Go's: one dash or two, `-name
//! value` or `-name=value`, booleans as `-name` or `-name=false`, flags first.
//!
//! Flags are data, so that help, parsing and the tests that walk them see the same list.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use crate::config::duration;

/// A flag of a command.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// Its name without dashes.
    pub name: &'static str,
    /// What its value is.
    pub kind: Kind,
    /// The value where it is not given, as help shows it; empty for none.
    pub default: &'static str,
    /// One sentence for help.
    pub usage: &'static str,
    /// Whether it is an old spelling, which is taken but not shown by help.
    pub former: bool,
}

/// Judges a value as it is read; sees the value given before, if there was one. The error is the
/// sentence after the flag's name.
pub type Check = fn(earlier: Option<&str>, value: &str) -> Result<(), String>;

/// What a flag's value is.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A text.
    Text,
    /// True when given alone.
    Bool,
    /// A whole number, decimal or with Go's prefixes (`0x10`).
    Integer,
    /// A duration with its unit, such as `90s`.
    Duration,
    /// A text that may be given several times.
    List,
    /// A text that is checked as it is read.
    Checked(Check),
}

impl Flag {
    /// A text.
    pub const fn text(name: &'static str, usage: &'static str) -> Self {
        Self::new(name, Kind::Text, usage)
    }

    /// A boolean, false unless given.
    pub const fn bool(name: &'static str, usage: &'static str) -> Self {
        Self::new(name, Kind::Bool, usage)
    }

    /// A whole number.
    pub const fn integer(name: &'static str, usage: &'static str) -> Self {
        Self::new(name, Kind::Integer, usage)
    }

    /// A duration.
    pub const fn duration(name: &'static str, usage: &'static str) -> Self {
        Self::new(name, Kind::Duration, usage)
    }

    /// A text that may be given several times.
    pub const fn list(name: &'static str, usage: &'static str) -> Self {
        Self::new(name, Kind::List, usage)
    }

    /// A text that is checked as it is read.
    pub const fn checked(name: &'static str, check: Check, usage: &'static str) -> Self {
        Self::new(name, Kind::Checked(check), usage)
    }

    const fn new(name: &'static str, kind: Kind, usage: &'static str) -> Self {
        Self { name, kind, default: "", usage, former: false }
    }

    /// With a value for where none is given.
    #[must_use]
    pub const fn default(self, default: &'static str) -> Self {
        Self { default, ..self }
    }

    /// As an old spelling.
    #[must_use]
    pub const fn former(self) -> Self {
        Self { former: true, ..self }
    }

    /// The word for its value in help.
    pub fn argument(&self) -> &'static str {
        match self.kind {
            Kind::Text => "string",
            Kind::Bool => "bool",
            Kind::Integer => "int",
            Kind::Duration => "duration",
            Kind::List | Kind::Checked(_) => "value",
        }
    }
}

/// Why a command line is not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// `-h` or `-help` was given.
    #[error("flag: help requested")]
    Help,
    /// A flag is unknown, or its value is missing or wrong. The text is Go's.
    #[error("{0}")]
    Bad(String),
}

/// The values that were given.
#[derive(Debug, Clone, Default)]
pub struct Values {
    given: BTreeMap<&'static str, Vec<String>>,
    defaults: BTreeMap<&'static str, &'static str>,
}

/// Reads `arguments` until the first that is no flag; the rest is ignored, as Go's tools do.
///
/// # Errors
/// [`FlagError`] at the first flag that is wrong.
pub fn parse(flags: &[Flag], arguments: &[String]) -> Result<Values, FlagError> {
    let mut values = Values {
        defaults: flags.iter().map(|flag| (flag.name, flag.default)).collect(),
        ..Values::default()
    };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let Some(rest) = argument.strip_prefix('-').filter(|rest| !rest.is_empty()) else { break };
        let name = rest.strip_prefix('-').unwrap_or(rest);
        if name.is_empty() {
            break;
        }
        if name.starts_with(['-', '=']) {
            return Err(FlagError::Bad(format!("bad flag syntax: {argument}")));
        }
        let (name, value) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (name, None),
        };
        let Some(flag) = flags.iter().find(|flag| flag.name == name) else {
            if matches!(name, "h" | "help") {
                return Err(FlagError::Help);
            }
            return Err(FlagError::Bad(format!("flag provided but not defined: -{name}")));
        };
        let value = match (flag.kind, value) {
            (_, Some(value)) => value.to_owned(),
            (Kind::Bool, None) => "true".to_owned(),
            (_, None) => arguments
                .next()
                .cloned()
                .ok_or_else(|| FlagError::Bad(format!("flag needs an argument: -{name}")))?,
        };
        let given = values.given.entry(flag.name).or_default();
        let earlier = given.last().map(String::as_str);
        check(flag, earlier, &value).map_err(FlagError::Bad)?;
        if !matches!(flag.kind, Kind::List | Kind::Checked(_)) {
            given.clear();
        }
        given.push(value);
    }
    Ok(values)
}

fn check(flag: &Flag, earlier: Option<&str>, value: &str) -> Result<(), String> {
    let name = flag.name;
    let error = match flag.kind {
        Kind::Text | Kind::List => return Ok(()),
        Kind::Bool if boolean(value).is_none() => {
            return Err(format!("invalid boolean value {value:?} for -{name}: parse error"));
        }
        Kind::Integer if integer(value).is_none() => "parse error".to_owned(),
        Kind::Duration if duration::parse(value).is_err() => "parse error".to_owned(),
        Kind::Checked(check) => match check(earlier, value) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        },
        _ => return Ok(()),
    };
    Err(format!("invalid value {value:?} for flag -{name}: {error}"))
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn integer(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.get(..2) {
        Some("0x") => (16, &lower[2..]),
        Some("0b") => (2, &lower[2..]),
        Some("0o") => (8, &lower[2..]),
        _ if lower.len() > 1 && lower.starts_with('0') => (8, &lower[1..]),
        _ => (10, &lower[..]),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    i64::from_str_radix(digits, radix).ok().map(|number| sign * number)
}

impl Values {
    /// Whether the flag was given.
    pub fn is_given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// The text given last, or the default.
    pub fn text(&self, name: &str) -> &str {
        let given = self.given.get(name).and_then(|values| values.last());
        given.map_or_else(|| self.defaults.get(name).copied().unwrap_or_default(), String::as_str)
    }

    /// The text given last, unless it is empty.
    pub fn given_text(&self, name: &str) -> Option<&str> {
        self.given.get(name)?.last().map(String::as_str).filter(|text| !text.is_empty())
    }

    /// All texts given, in order.
    pub fn list(&self, name: &str) -> &[String] {
        self.given.get(name).map_or(&[], Vec::as_slice)
    }

    /// Whether the boolean is true.
    pub fn bool(&self, name: &str) -> bool {
        boolean(self.text(name)).unwrap_or_default()
    }

    /// The number, or 0 where none was given and there is no default.
    pub fn integer(&self, name: &str) -> i64 {
        integer(self.text(name)).unwrap_or_default()
    }

    /// The duration, zero where none was given and there is no default; a negative one is zero.
    pub fn duration(&self, name: &str) -> Duration {
        let duration = duration::parse(self.text(name)).unwrap_or_default();
        Duration::try_from(duration).unwrap_or_default()
    }
}

/// The usage of a command: `Usage of <command>:` and its flags in alphabetical order.
pub fn usage(command: &str, flags: &[Flag]) -> String {
    let mut sorted: Vec<_> = flags.iter().filter(|flag| !flag.former).collect();
    sorted.sort_by_key(|flag| flag.name);
    let mut text = format!("Usage of {command}:\n");
    for flag in sorted {
        let argument = match flag.kind {
            Kind::Bool => String::new(),
            _ => format!(" {}", flag.argument()),
        };
        let usage = flag.usage.replace('\n', "\n    \t");
        let default = match (flag.default, flag.kind) {
            ("", _) => String::new(),
            (default, Kind::Text) => format!(" (default {default:?})"),
            (default, _) => format!(" (default {default})"),
        };
        let _ = writeln!(text, "  -{}{argument}\n    \t{usage}{default}", flag.name);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[
        Flag::text("socketPath", "Path of the socket").default("/tmp/s"),
        Flag::text("registrationUDSPath", "Path of the socket").former(),
        Flag::integer("ttl", "Seconds").default("600"),
        Flag::duration("timeout", "Time to wait").default("5s"),
        Flag::bool("admin", "Is it?"),
        Flag::list("selector", "A selector; may be given several times"),
        Flag::checked("output", once, "How to print"),
    ];

    fn once(earlier: Option<&str>, value: &str) -> Result<(), String> {
        match earlier {
            Some(earlier) if earlier != value => Err(format!("was {earlier:?} before")),
            _ => Ok(()),
        }
    }

    fn parse_words(line: &str) -> Result<Values, String> {
        let words: Vec<_> = line.split_whitespace().map(ToOwned::to_owned).collect();
        parse(FLAGS, &words).map_err(|error| error.to_string())
    }

    #[test]
    fn values_are_read_in_every_form() {
        let line = "-socketPath /a --ttl=0x10 -admin -selector a:b -selector=c:d x -unknown";
        let values = parse_words(line).unwrap();
        assert_eq!((values.text("socketPath"), values.integer("ttl")), ("/a", 16));
        assert!(values.bool("admin") && !values.is_given("timeout"));
        assert_eq!(values.duration("timeout"), Duration::from_secs(5));
        assert_eq!(values.list("selector"), ["a:b", "c:d"]);
        assert!(!parse_words("-admin=false").unwrap().bool("admin"));
        assert_eq!(
            parse_words("-output a -output=a -registrationUDSPath /b").unwrap().text("output"),
            "a"
        );
    }

    #[test]
    fn mistakes_have_the_known_texts() {
        for (line, text) in [
            ("-x", "flag provided but not defined: -x"),
            ("-ttl", "flag needs an argument: -ttl"),
            ("-ttl 1h", "invalid value \"1h\" for flag -ttl: parse error"),
            ("-timeout 5", "invalid value \"5\" for flag -timeout: parse error"),
            ("-admin=x", "invalid boolean value \"x\" for -admin: parse error"),
            ("---x", "bad flag syntax: ---x"),
            ("-output a -output b", "invalid value \"b\" for flag -output: was \"a\" before"),
            ("-h", "flag: help requested"),
        ] {
            assert_eq!(parse_words(line).unwrap_err(), text);
        }
    }

    #[test]
    fn help_lists_flags_by_name() {
        let text = usage("token generate", FLAGS);
        assert!(text.starts_with("Usage of token generate:\n  -admin\n    \tIs it?\n"), "{text}");
        assert!(text.contains("  -ttl int\n    \tSeconds (default 600)\n"));
        assert!(text.contains("(default \"/tmp/s\")") && !text.contains("registrationUDSPath"));
    }
}
