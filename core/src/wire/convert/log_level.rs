//! How much is logged, as the logger services of server and agent say it.

use tonic::Status;

use crate::telemetry::log::{LogLevel, Logger};
use crate::wire::types;

impl From<LogLevel> for types::LogLevel {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Panic => Self::Panic,
            LogLevel::Fatal => Self::Fatal,
            LogLevel::Error => Self::Error,
            LogLevel::Warn => Self::Warn,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
            LogLevel::Trace => Self::Trace,
        }
    }
}

impl TryFrom<types::LogLevel> for LogLevel {
    type Error = Status;

    fn try_from(level: types::LogLevel) -> Result<Self, Status> {
        Ok(match level {
            types::LogLevel::Unspecified => {
                let sentence = "newLevel value cannot be LogLevel_UNSPECIFIED";
                return Err(Status::invalid_argument(sentence));
            }
            types::LogLevel::Panic => Self::Panic,
            types::LogLevel::Fatal => Self::Fatal,
            types::LogLevel::Error => Self::Error,
            types::LogLevel::Warn => Self::Warn,
            types::LogLevel::Info => Self::Info,
            types::LogLevel::Debug => Self::Debug,
            types::LogLevel::Trace => Self::Trace,
        })
    }
}

impl From<&Logger> for types::Logger {
    fn from(log: &Logger) -> Self {
        Self {
            current_level: types::LogLevel::from(log.level()).into(),
            launch_level: types::LogLevel::from(log.launch_level()).into(),
        }
    }
}
