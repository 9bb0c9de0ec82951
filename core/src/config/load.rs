//! From file and flags to a checked configuration, and what is printed where there is none.

use std::fmt;
use std::path::{Path, PathBuf};

use super::mistake::{Mistake, UnknownKeys, Warning};
use super::reader::Reader;
use super::{ReadError, Section, read_file};

/// A configuration that holds, with what the log should say about it.
#[derive(Debug)]
pub struct Loaded<T> {
    /// The configuration.
    pub config: T,
    /// To be logged once there is a log.
    pub warnings: Vec<Warning>,
}

/// Why there is no configuration. Prints one line for each mistake, as `run` does on stderr.
#[derive(Debug)]
pub enum LoadError {
    /// The file cannot be read or parsed.
    Read(ReadError),
    /// The file, with the flags, has mistakes.
    Mistakes {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong. Never empty.
        mistakes: Vec<Mistake>,
        /// Sections with unknown keys, which are among the mistakes as well.
        unknown: Vec<UnknownKeys>,
    },
}

impl fmt::Display for LoadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => write!(formatter, "{error}"),
            Self::Mistakes { path, mistakes, .. } => {
                for (index, mistake) in mistakes.iter().enumerate() {
                    let line_end = if index == 0 { "" } else { "\n" };
                    formatter.write_str(line_end)?;
                    if mistake.wrong_type {
                        write!(formatter, "unable to decode configuration at {path:?}: ")?;
                    }
                    write!(formatter, "{mistake}")?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for LoadError {}

/// Reads the file at `path`, lays the flags over it with `overlay` and checks the whole.
///
/// # Errors
/// [`LoadError`] with every mistake.
pub fn load<T>(
    path: &Path,
    expand_environment: bool,
    overlay: impl FnOnce(&mut Section),
    read: impl FnOnce(&mut Reader<'_>) -> Option<T>,
) -> Result<Loaded<T>, LoadError> {
    let mut section = read_file(path, expand_environment).map_err(LoadError::Read)?;
    overlay(&mut section);
    let (config, findings) = section.read(|reader| read(reader));
    match config {
        Some(config) if findings.mistakes.is_empty() => {
            Ok(Loaded { config, warnings: findings.warnings })
        }
        _ => Err(LoadError::Mistakes {
            path: path.to_owned(),
            mistakes: findings.mistakes,
            unknown: findings.unknown,
        }),
    }
}
