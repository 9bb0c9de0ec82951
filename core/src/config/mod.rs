//! Configuration files: HCL 1 or JSON → one tree with places → typed sections.
//!
//! A section is read by a type that implements [`FromSection`]; it asks a [`Reader`] for its keys,
//! which collects every mistake. What only one binary has in its file is read in that binary.

mod blocks;
pub mod duration;
mod environment;
mod lexer;
mod load;
mod mistake;
mod plugins;
mod reader;
mod syntax;
mod tree;
mod verdict;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

pub use blocks::{
    CertificateSource, ClientCheck, HealthChecksConfig, M3Config, PrometheusConfig, PrometheusTls,
    TelemetryConfig, check_feature_flags, ignore_profiling, parse_key_type, read_log,
    read_telemetry, read_trust_domain, refuse_named_pipe, refuse_unsupported,
};
pub use load::{LoadError, Loaded, load};
pub use mistake::{ConfigErrors, Mistake, UnknownKeys, Warning};
pub use plugins::{PluginConfig, read_plugins};
pub use reader::{Findings, FromSection, Reader};
pub use syntax::{MAX_DEPTH, MAX_FILE_BYTES, MAX_TOKENS, SyntaxError};
pub use tree::Position;
pub use verdict::{Validation, Verdict};

use tree::{Item, Node, Value};

/// A block of a configuration file, with the place of every key.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Section {
    items: Vec<Item>,
    path: String,
    at: Option<Position>,
}

impl Section {
    /// Reads a text in HCL 1 or JSON.
    ///
    /// # Errors
    /// [`SyntaxError`] at the first place that breaks the syntax or a limit.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        Ok(Self { items: syntax::parse(text)?, path: String::new(), at: None })
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Drops a key that means nothing any more.
    pub fn remove(&mut self, key: &str) {
        self.items.retain(|item| !item.key.eq_ignore_ascii_case(key));
    }

    /// Puts the items of `other` before these, so that of a key that both have this one counts, and
    /// blocks that both have are one. Of blocks under labels those are taken whose label this
    /// section has too; the others are returned as `key "label"`.
    pub fn lend(&mut self, other: &Self) -> Vec<String> {
        let mut left_out = Vec::new();
        let mut lent = other.items.clone();
        for Item { key, node, .. } in &mut lent {
            let Value::Block(labels) = &mut node.value else { continue };
            labels.retain(|label| {
                let is_taken = !label.node.is_block() || self.has_label(key, &label.key);
                if !is_taken {
                    left_out.push(format!("{key} {:?}", label.key));
                }
                is_taken
            });
        }
        self.items.splice(0..0, lent);
        left_out
    }

    fn has_label(&self, key: &str, label: &str) -> bool {
        self.items.iter().filter(|item| item.key.eq_ignore_ascii_case(key)).any(|item| {
            matches!(&item.node.value, Value::Block(labels)
                if labels.iter().any(|one| one.key == label))
        })
    }

    /// Sets `block.key` to a text from the command line, which the file's own value yields to.
    pub fn set_text(&mut self, block: &str, key: &str, text: &str) {
        self.set(block, key, Value::Text(Zeroizing::new(text.to_owned())));
    }

    /// Sets `block.key` to a number from the command line.
    pub fn set_integer(&mut self, block: &str, key: &str, number: i64) {
        self.set(block, key, Value::Integer(number.to_string()));
    }

    /// Sets `block.key` to true from the command line.
    pub fn set_true(&mut self, block: &str, key: &str) {
        self.set(block, key, Value::Boolean(true));
    }

    /// A flag is one more key at the end of its block, where the last one wins.
    fn set(&mut self, block: &str, key: &str, value: Value) {
        let at = Position::COMMAND_LINE;
        let item = Item { key: key.to_owned(), at, node: Node { at, value } };
        let node = Node { at, value: Value::Block(vec![item]) };
        self.items.push(Item { key: block.to_owned(), at, node });
    }

    /// Reads the section into its type. Warnings go to the log at once.
    ///
    /// # Errors
    /// [`ConfigErrors`], one item for each mistake.
    pub fn decode<T: FromSection>(&self) -> Result<T, ConfigErrors> {
        let (value, findings) = self.read(T::read);
        findings.unknown.iter().for_each(UnknownKeys::log);
        findings.warnings.iter().for_each(Warning::log);
        reader::conclude(value, findings.mistakes)
    }

    /// Reads the section by a function and hands over everything that was found.
    pub fn read<'s, T>(
        &'s self,
        read: impl FnOnce(&mut Reader<'s>) -> Option<T>,
    ) -> (Option<T>, Findings) {
        Reader::new(self.items.iter().collect(), self.path.clone(), self.at).run(read)
    }
}

/// Why a file could not be read into a section. Prints SPIRE's sentence.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no such file.
    #[error("could not find config file {}: please use the -config flag", .0.display())]
    NotFound(PathBuf),
    /// The file cannot be opened or read, or is no text.
    #[error("unable to read configuration at {path:?}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is larger than [`MAX_FILE_BYTES`], as it is or with its variables replaced.
    #[error("unable to decode configuration at {0:?}: more than {MAX_FILE_BYTES} bytes")]
    TooLarge(PathBuf),
    /// The file breaks the syntax.
    #[error("unable to decode configuration at {path:?}: {source}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and how.
        source: SyntaxError,
    },
}

/// Reads a configuration file; `expand_environment` replaces variables in its text first.
///
/// # Errors
/// [`ReadError`] says what keeps the file from being read.
pub fn read_file(path: &Path, expand_environment: bool) -> Result<Section, ReadError> {
    let unreadable = |source| ReadError::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            ReadError::NotFound(std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))
        }
        _ => unreadable(error),
    })?;
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_FILE_BYTES as u64 + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() > MAX_FILE_BYTES {
        return Err(ReadError::TooLarge(path.to_owned()));
    }
    if expand_environment {
        let variable = |name: &str| std::env::var(name).ok();
        let expanded = environment::expand(&text, variable);
        text = Zeroizing::new(expanded.ok_or_else(|| ReadError::TooLarge(path.to_owned()))?);
    }
    let syntax = |source| ReadError::Syntax { path: path.to_owned(), source };
    Section::parse(&text).map_err(syntax)
}
