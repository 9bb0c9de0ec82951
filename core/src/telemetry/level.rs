//! The words by which operators choose how much is logged, and in which form.

use std::str::FromStr;

use tracing::level_filters::LevelFilter;

/// How much is logged; the names are logrus's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum LogLevel {
    /// Nothing that this program logs.
    Panic,
    /// Nothing that this program logs.
    Fatal,
    /// Errors.
    Error,
    /// And warnings.
    Warn,
    /// And what happens: the default.
    Info,
    /// And what explains it.
    Debug,
    /// And everything else.
    Trace,
}

impl LogLevel {
    pub(super) const ALL: [Self; 7] =
        [Self::Panic, Self::Fatal, Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// The name as it stands in a log line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Fatal => "fatal",
            Self::Error => "error",
            Self::Warn => "warning",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    pub(super) fn filter(self) -> LevelFilter {
        match self {
            Self::Panic | Self::Fatal => LevelFilter::OFF,
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::Trace => LevelFilter::TRACE,
        }
    }
}

/// A word that names no level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid logrus Level: {0:?}")]
pub struct UnknownLevel(String);

impl FromStr for LogLevel {
    type Err = UnknownLevel;
    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        let word = text.to_ascii_lowercase();
        let word = if word == "warn" { "warning" } else { &word };
        Self::ALL
            .into_iter()
            .find(|level| level.as_str() == word)
            .ok_or_else(|| UnknownLevel(text.to_owned()))
    }
}

/// How a line looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// `key=value` pairs with times in seconds; short and coloured on a terminal.
    #[default]
    Default,
    /// `key=value` pairs with times in nanoseconds.
    Text,
    /// One JSON object a line.
    Json,
}

/// A word that names no format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown logger format: {0:?}")]
pub struct UnknownFormat(String);

impl FromStr for LogFormat {
    type Err = UnknownFormat;
    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        match text.to_ascii_lowercase().as_str() {
            "" => Ok(Self::Default),
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(UnknownFormat(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_logrus_reads_them() {
        assert_eq!("WARN".parse(), Ok(LogLevel::Warn));
        assert_eq!("warning".parse(), Ok(LogLevel::Warn));
        let error = "loud".parse::<LogLevel>().unwrap_err().to_string();
        assert_eq!(error, "not a valid logrus Level: \"loud\"");
        let error = "xml".parse::<LogFormat>().unwrap_err().to_string();
        assert_eq!(error, "unknown logger format: \"xml\"");
    }
}
