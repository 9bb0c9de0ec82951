//! Reading a section into its type: each key is asked for by name and kind, and every mistake is
//! kept until the section has been read.
//!
//! This is not serde, since serde stops at the first mistake and knows neither the place of a key
//! nor that it has an older spelling.

mod blocks;
mod values;

use std::collections::BTreeSet;

use super::mistake::{ConfigErrors, Mistake, UnknownKeys, Warning, nearest, shown};
use super::tree::{Item, Node, Position, Value};

/// Most unknown keys of a section that are reported one by one.
const MAX_UNKNOWN: usize = 20;

/// A type that is read from a section.
pub trait FromSection: Sized {
    /// Asks `reader` for every key that the section may have, and only then gives up.
    ///
    /// `None` only after a mistake has been reported. What is returned beside a mistake is thrown
    /// away, so a placeholder may stand for a value that could not be read.
    fn read(reader: &mut Reader<'_>) -> Option<Self>;
}

/// What became of a section: mistakes and unknown keys refuse it, warnings don't.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Everything that is wrong, in the order of reading.
    pub mistakes: Vec<Mistake>,
    /// Unknown keys by section; each key is among the mistakes as well.
    pub unknown: Vec<UnknownKeys>,
    /// Everything that is worth a line in the log.
    pub warnings: Vec<Warning>,
}

impl Findings {
    pub(super) fn append(&mut self, other: Self) {
        self.mistakes.extend(other.mistakes);
        self.unknown.extend(other.unknown);
        self.warnings.extend(other.warnings);
    }
}

/// What happens to keys that nobody asked for.
#[derive(Debug, Clone, Copy)]
enum Unknown {
    Warn,
    Tolerate,
    Refuse(&'static str),
}

/// A section that is being read.
///
/// Keys match whatever their case. An empty text counts as absent, as a zero does in SPIRE.
#[derive(Debug)]
pub struct Reader<'s> {
    items: Vec<&'s Item>,
    path: String,
    at: Option<Position>,
    known: Vec<&'static str>,
    secret: Vec<&'static str>,
    renamed: Vec<(&'static str, &'static str)>,
    unknown: Unknown,
    findings: Findings,
}

impl<'s> Reader<'s> {
    pub(super) fn new(items: Vec<&'s Item>, path: String, at: Option<Position>) -> Self {
        Self {
            items,
            path,
            at,
            known: Vec::new(),
            secret: Vec::new(),
            renamed: Vec::new(),
            unknown: Unknown::Warn,
            findings: Findings::default(),
        }
    }

    /// Reads a type and reports the keys that it did not ask for.
    pub(super) fn run<T>(
        mut self,
        read: impl FnOnce(&mut Self) -> Option<T>,
    ) -> (Option<T>, Findings) {
        let value = read(&mut self);
        self.report_unknown();
        if value.is_none() && self.findings.mistakes.is_empty() {
            let mistake = Mistake { at: self.at, ..Mistake::new("section is incomplete") };
            self.findings.mistakes.push(mistake.path(self.path));
        }
        (value, self.findings)
    }

    /// Whether the section holds nothing.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    // Keys.

    /// Whether the key is there, with any value.
    pub fn has(&mut self, key: &'static str) -> bool {
        self.node(key).is_some()
    }

    /// Accepts `old` as a former name of `current`, with one warning. Call it before `current` is
    /// read.
    pub fn renamed(&mut self, old: &'static str, current: &'static str) {
        self.know(old);
        let Some(former) = self.find(old) else { return };
        self.deprecated(format!("{old} is deprecated; use {current} instead"), old);
        match self.find(current) {
            Some(node) if node.value != former.value => {
                let sentence = format!("{old} is the former name of {current}; both are set");
                self.reject(old, &sentence, &format!("keep {current} alone"));
            }
            _ => self.renamed.push((old, current)),
        }
    }

    /// Accepts `key` without effect, with one warning that says `why`.
    pub fn ignored(&mut self, key: &'static str, why: &str) {
        if self.has(key) {
            self.deprecated(format!("{key} has no effect: {why}"), key);
        }
    }

    /// Adds a warning about the old spelling `key`.
    pub fn deprecated(&mut self, sentence: impl Into<String>, key: &str) {
        self.warn_of(&sentence.into(), key, true);
    }

    /// Adds a warning that what `key` asks for is not there, and says `why`.
    pub fn unserved(&mut self, key: &str, why: &str) {
        self.warn_of(&format!("{key} has no effect: {why}"), key, false);
    }

    fn warn_of(&mut self, sentence: &str, key: &str, deprecation: bool) {
        let at = self.find(key).map(|node| format!(", line {}", node.at.line)).unwrap_or_default();
        let message = format!("{sentence} ({}{at})", self.path_of(key));
        self.findings.warnings.push(Warning { message, deprecation });
    }

    /// Adds a warning that stands for itself.
    pub fn warn(&mut self, sentence: impl Into<String>) {
        self.findings.warnings.push(Warning { message: sentence.into(), deprecation: false });
    }

    /// Adds a mistake about `key`, with its place and, unless it is a secret, its value.
    pub fn reject(&mut self, key: &str, sentence: &str, remedy: &str) {
        let node = self.find(key);
        let value = match node.map(|node| &node.value) {
            _ if self.secret.contains(&key) => None,
            Some(Value::Text(text)) => Some(shown(text)),
            Some(Value::Integer(text) | Value::Float(text)) => Some(text.clone()),
            Some(Value::Boolean(value)) => Some(value.to_string()),
            _ => None,
        };
        self.findings.mistakes.push(Mistake {
            value,
            at: node.map(|node| node.at).or(self.at),
            remedy: Some(remedy.to_owned()),
            ..Mistake::new(sentence).path(self.path_of(key))
        });
    }

    /// Adds a mistake about the section itself.
    pub fn reject_section(&mut self, sentence: &str, remedy: &str) {
        self.findings.mistakes.push(Mistake {
            at: self.at,
            remedy: Some(remedy.to_owned()),
            ..Mistake::new(sentence).path(self.path.clone())
        });
    }

    /// The keys that nobody has asked for so far, sorted.
    pub fn unasked(&self) -> Vec<String> {
        let known = |key: &str| self.known.iter().any(|known| known.eq_ignore_ascii_case(key));
        let unasked = self.items.iter().filter(|item| !known(&item.key));
        let keys: BTreeSet<&String> = unasked.map(|item| &item.key).collect();
        keys.into_iter().cloned().collect()
    }

    /// Unknown keys refuse the file; `section` is the section's name in the log.
    pub fn refuse_unknown(&mut self, section: &'static str) {
        self.unknown = Unknown::Refuse(section);
    }

    /// Unknown keys are passed over without a word.
    pub fn tolerate_unknown(&mut self) {
        self.unknown = Unknown::Tolerate;
    }

    /// Keys that are known although they are not read here.
    pub fn know(&mut self, key: &'static str) {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
    }

    /// Whether a mistake about `key` has been reported.
    pub fn is_mistaken(&self, key: &str) -> bool {
        let path = self.path_of(key);
        self.findings.mistakes.iter().any(|mistake| mistake.path == path)
    }

    /// Whether a mistake about `key` or anything inside it has been reported.
    pub fn is_mistaken_below(&self, key: &str) -> bool {
        let path = self.path_of(key);
        self.findings.mistakes.iter().any(|mistake| mistake.path.starts_with(&path))
    }

    /// The path of `key` from the top of the file.
    pub fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(super) fn push(&mut self, mistake: Mistake) {
        self.findings.mistakes.push(mistake);
    }

    fn report_unknown(&mut self) {
        let known = |key: &str| self.known.iter().any(|known| known.eq_ignore_ascii_case(key));
        let mut unknown: Vec<&Item> =
            self.items.iter().copied().filter(|item| !known(&item.key)).collect();
        if unknown.is_empty() {
            return;
        }
        unknown.sort_by(|left, right| left.key.cmp(&right.key));
        unknown.dedup_by(|left, right| left.key == right.key);
        let reported = unknown.iter().take(MAX_UNKNOWN);
        match self.unknown {
            Unknown::Tolerate => {}
            Unknown::Warn => {
                let sentences: Vec<String> = reported
                    .map(|item| {
                        let remedy = self.remedy_for(&item.key);
                        let (path, line) = (self.path_of(&item.key), item.at.line);
                        format!(
                            "unknown setting {:?} has no effect ({path}, line {line}; {remedy})",
                            item.key
                        )
                    })
                    .collect();
                sentences.into_iter().for_each(|sentence| self.warn(sentence));
            }
            Unknown::Refuse(section) => {
                let mistakes = reported.map(|item| Mistake {
                    at: Some(item.at),
                    remedy: Some(self.remedy_for(&item.key)),
                    ..Mistake::new("unknown configuration detected").path(self.path_of(&item.key))
                });
                let mistakes: Vec<Mistake> = mistakes.collect();
                let keys = unknown.iter().map(|item| item.key.clone()).collect();
                self.findings.mistakes.extend(mistakes);
                self.findings.unknown.push(UnknownKeys { section, keys });
            }
        }
    }

    fn remedy_for(&self, key: &str) -> String {
        match nearest(key, &self.known) {
            Some(known) => format!("did you mean {known}?"),
            None => "remove it".to_owned(),
        }
    }

    // Looking up.

    /// The last value of `key`, which becomes known; `null` counts as absent.
    fn node(&mut self, key: &'static str) -> Option<&'s Node> {
        self.know(key);
        self.find(key).or_else(|| {
            let former = self.renamed.iter().filter(|(_, current)| *current == key);
            former.filter_map(|(old, _)| self.find(old)).next()
        })
    }

    fn find(&self, key: &str) -> Option<&'s Node> {
        let mut found = self.items.iter().rev().filter(|item| item.key.eq_ignore_ascii_case(key));
        found.find(|item| item.node.value != Value::Null).map(|item| &item.node)
    }

    /// All values of `key` in order.
    fn nodes(&mut self, key: &'static str) -> Vec<&'s Node> {
        self.know(key);
        let matching = self.items.iter().filter(|item| item.key.eq_ignore_ascii_case(key));
        matching.map(|item| &item.node).collect()
    }
}

/// Turns what was found into a result.
pub(super) fn conclude<T>(value: Option<T>, mistakes: Vec<Mistake>) -> Result<T, ConfigErrors> {
    match value {
        Some(value) if mistakes.is_empty() => Ok(value),
        _ => Err(ConfigErrors(mistakes)),
    }
}

#[cfg(test)]
mod tests;
