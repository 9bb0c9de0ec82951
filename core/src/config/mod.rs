//! Configuration files: HCL 1 or JSON → one tree with positions → typed sections.

use serde::de::DeserializeOwned;

/// A block of a configuration file, with the place of every key.
#[derive(Debug, Clone, Default)]
pub struct Section {}

impl Section {
    /// Reads the block into its type. Every mistake is reported, not the first alone.
    ///
    /// # Errors
    /// [`ConfigErrors`], one item for each mistake.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, ConfigErrors> {
        Err(ConfigErrors(Vec::new()))
    }
}

/// One mistake in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Path of the key from the top of the file, such as `server.ca_ttl`.
    pub path: String,
    /// The offending value as written, where showing it is safe and helps.
    pub value: Option<String>,
    /// Line in the file, from 1.
    pub line: Option<u32>,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub remedy: Option<String>,
}

/// All mistakes of a file. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<Mistake>);
