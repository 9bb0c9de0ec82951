//! `logger` of both programs.

use super::{Failure, Outcome, answer};
use crate::flags::{Flag, Values};
use crate::telemetry::log::LogLevel;
use crate::wire::types::{self, Logger};

/// The level that `logger set` asks for.
pub const LEVEL: Flag =
    Flag::text("level", "The new log level: panic, fatal, error, warn, info, debug or trace");

/// The level that `-level` names, as it travels.
///
/// # Errors
/// There is none, or it is unknown.
pub fn wanted_level(values: &Values) -> Result<i32, Failure> {
    let text = values.given_text(LEVEL.name);
    let text = text.ok_or_else(|| Failure::new("a value (-level) must be set"))?;
    let level = text.parse::<LogLevel>();
    let level =
        level.map_err(|_| Failure::new(format!("the value {text:?} is not a valid setting")))?;
    Ok(types::LogLevel::from(level).into())
}

/// Prints what a logger service answered.
///
/// # Errors
/// The output cannot be written.
pub fn print_logger(values: &Values, logger: &Logger) -> Outcome {
    let name = |level| LogLevel::try_from(level).map_or("unspecified", LogLevel::as_str);
    answer(values, logger, || {
        let (level, launch) = (name(logger.current_level()), name(logger.launch_level()));
        format!("Logger Level : {level}\nLaunch Level : {launch}\n\n")
    })
}
