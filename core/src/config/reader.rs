//! Reading a section into its type: each key is asked for by name and kind, and every mistake is
//! kept until the section has been read.
//!
//! This is not serde, since serde stops at the first mistake and knows neither the place of a key
//! nor that it has an older spelling.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use jiff::SignedDuration;
use zeroize::Zeroizing;

use super::mistake::{ConfigErrors, Mistake, UnknownKeys, Warning, nearest, shown};
use super::tree::{Item, Node, Position, Value};
use super::{Section, duration};

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

    // Values.

    /// A text; numbers are accepted as written.
    pub fn string(&mut self, key: &'static str) -> Option<String> {
        self.text(key).map(|text| text.to_string())
    }

    /// A text that no mistake shows.
    pub fn secret(&mut self, key: &'static str) -> Option<Zeroizing<String>> {
        self.secret.push(key);
        self.text(key)
    }

    /// A text that must be there; `sentence` says so where it is not.
    pub fn required(&mut self, key: &'static str, sentence: &str) -> Option<String> {
        let text = self.string(key);
        if text.is_none() && !self.is_mistaken(key) {
            self.reject(key, sentence, &format!("set {key}"));
        }
        text
    }

    /// A boolean; quoted ones are refused, as in SPIRE.
    pub fn boolean(&mut self, key: &'static str) -> Option<bool> {
        let node = self.node(key)?;
        match &node.value {
            Value::Boolean(value) => Some(*value),
            other => {
                let message = format!("unknown type {}", other.kind());
                self.wrong_type(key, node.at, &message, "write true or false without quotes");
                None
            }
        }
    }

    /// A boolean that is false where it is absent.
    pub fn flag(&mut self, key: &'static str) -> bool {
        self.boolean(key).unwrap_or(false)
    }

    /// A whole number, quoted or not.
    pub fn integer<T: TryFrom<i64>>(&mut self, key: &'static str) -> Option<T> {
        let node = self.node(key)?;
        let (text, number) = match &node.value {
            Value::Integer(text) => (text.as_str(), whole_number(text)),
            Value::Text(text) if text.is_empty() => return None,
            Value::Text(text) => (text.as_str(), whole_number(text)),
            other => {
                let message = format!("unknown type {}", other.kind());
                self.wrong_type(key, node.at, &message, "write a whole number");
                return None;
            }
        };
        let Some(number) = number else {
            let message = format!("strconv.ParseInt: parsing {text:?}: invalid syntax");
            self.wrong_type_as_is(key, node.at, message, "write a whole number");
            return None;
        };
        let fitting = T::try_from(number).ok();
        if fitting.is_none() {
            self.reject(key, &format!("{key} is out of range"), "write a smaller or larger number");
        }
        fitting
    }

    /// A list of texts.
    pub fn strings(&mut self, key: &'static str) -> Option<Vec<String>> {
        let node = self.node(key)?;
        let Value::List(nodes) = &node.value else {
            let message = format!("unknown slice type: {}", node.value.kind());
            let message = format!("At {}: {message}", node.at);
            self.wrong_type_as_is(key, node.at, message, "write a list: [\"…\"]");
            return None;
        };
        nodes.iter().map(|node| self.text_of(key, node).map(|text| text.to_string())).collect()
    }

    /// A block of texts under keys that the operator chooses, such as labels.
    pub fn string_map(&mut self, key: &'static str) -> Vec<(String, String)> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for item in self.block_items(key) {
            if let Some(text) = self.text_of(key, &item.node) {
                pairs.push((item.key.clone(), text.to_string()));
            }
        }
        pairs
    }

    /// A text that `parse` understands; its error is the whole sentence of the mistake.
    pub fn parsed<T>(
        &mut self,
        key: &'static str,
        remedy: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(key)?;
        parse(&text).map_err(|sentence| self.reject(key, &sentence, remedy)).ok()
    }

    /// A duration such as `24h`, called `what` where it cannot be read. Zero means the default,
    /// so it counts as absent; a negative one is refused.
    pub fn duration(&mut self, key: &'static str, what: &str) -> Option<Duration> {
        self.duration_saying(key, |text, error| format!("could not parse {what} {text:?}: {error}"))
    }

    /// As [`duration`](Self::duration), with a sentence made of the text and the error.
    pub fn duration_saying(
        &mut self,
        key: &'static str,
        sentence: impl Fn(&str, &str) -> String,
    ) -> Option<Duration> {
        let remedy = "write a positive duration with units h, m, s or ms, such as 24h or 1h30m";
        let duration = self.parsed(key, remedy, |text| {
            let duration: SignedDuration =
                duration::parse(text).map_err(|error| sentence(text, &error.to_string()))?;
            Duration::try_from(duration).map_err(|_| sentence(text, "must not be negative"))
        });
        duration.filter(|duration| !duration.is_zero())
    }

    // Blocks.

    /// The block `key`; one written several times is one block.
    pub fn block<T: FromSection>(&mut self, key: &'static str) -> Option<T> {
        self.block_with(key, T::read)
    }

    /// As [`block`](Self::block), read by a function.
    pub fn block_with<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Reader<'s>) -> Option<T>,
    ) -> Option<T> {
        let node = self.node(key)?;
        let items = self.block_items(key);
        if !node.is_block() {
            return None;
        }
        self.nested(items, self.path_of(key), Some(node.at), read)
    }

    /// As [`block_with`](Self::block_with), and an absent block is read as an empty one.
    pub fn block_or_empty<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Reader<'s>) -> Option<T>,
    ) -> Option<T> {
        let at = self.node(key).map(|node| node.at);
        let items = self.block_items(key);
        self.nested(items, self.path_of(key), at, read)
    }

    /// Whether `key` is there and is a block.
    pub fn is_block(&mut self, key: &'static str) -> bool {
        self.node(key).is_some_and(Node::is_block)
    }

    /// Each of the blocks `key`, whether repeated or in a list.
    pub fn blocks<T: FromSection>(&mut self, key: &'static str) -> Vec<T> {
        self.blocks_with(key, T::read)
    }

    /// As [`blocks`](Self::blocks), each read by a function.
    pub fn blocks_with<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&mut Reader<'s>) -> Option<T>,
    ) -> Vec<T> {
        let mut blocks: Vec<&'s Node> = Vec::new();
        for node in self.nodes(key) {
            match &node.value {
                Value::Block(_) => blocks.push(node),
                Value::List(nodes) => blocks.extend(nodes),
                _ => self.not_a_block(key, node),
            }
        }
        let mut values = Vec::new();
        for node in blocks {
            let Value::Block(items) = &node.value else {
                self.not_a_block(key, node);
                continue;
            };
            let path = self.path_of(key);
            values.extend(self.nested(items.iter().collect(), path, Some(node.at), &read));
        }
        values
    }

    /// Each block that stands under a label: `key "label" { … }`. A label written twice is one
    /// block.
    pub fn labelled<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&str, &mut Reader<'s>) -> Option<T>,
    ) -> Vec<T> {
        let mut labels: Vec<(&'s Item, Vec<&'s Item>)> = Vec::new();
        let mut index: HashMap<&'s str, usize> = HashMap::new();
        for item in self.block_items(key) {
            let Value::Block(items) = &item.node.value else {
                self.not_a_block(key, &item.node);
                continue;
            };
            let place = *index.entry(&item.key).or_insert(labels.len());
            if place == labels.len() {
                labels.push((item, Vec::new()));
            }
            labels[place].1.extend(items);
        }
        let mut values = Vec::new();
        for (label, items) in labels {
            let path = format!("{}[{:?}]", self.path_of(key), label.key);
            let read = |reader: &mut Reader<'s>| read(&label.key, reader);
            values.extend(self.nested(items, path, Some(label.at), read));
        }
        values
    }

    /// The block `key` as it is, to be read later.
    pub fn section(&mut self, key: &'static str) -> Option<Section> {
        let at = self.node(key)?.at;
        let items = self.block_items(key).into_iter().cloned().collect();
        Some(Section { items, path: self.path_of(key), at: Some(at) })
    }

    /// Takes over what was found while something below this section was read.
    pub(super) fn absorb<T>(&mut self, (value, findings): (Option<T>, Findings)) -> Option<T> {
        self.findings.append(findings);
        value
    }

    fn nested<T>(
        &mut self,
        items: Vec<&'s Item>,
        path: String,
        at: Option<Position>,
        read: impl FnOnce(&mut Reader<'s>) -> Option<T>,
    ) -> Option<T> {
        self.absorb(Reader::new(items, path, at).run(read))
    }

    /// The items of all blocks `key`, in order.
    pub(super) fn block_items(&mut self, key: &'static str) -> Vec<&'s Item> {
        let mut all = Vec::new();
        for node in self.nodes(key) {
            match &node.value {
                Value::Block(items) => all.extend(items),
                Value::Null => {}
                _ => self.not_a_block(key, node),
            }
        }
        all
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
        let at = self.find(key).map(|node| format!(", line {}", node.at.line)).unwrap_or_default();
        let message = format!("{} ({}{at})", sentence.into(), self.path_of(key));
        self.findings.warnings.push(Warning { message, deprecation: true });
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

    fn text(&mut self, key: &'static str) -> Option<Zeroizing<String>> {
        let node = self.node(key)?;
        self.text_of(key, node).filter(|text| !text.is_empty())
    }

    fn text_of(&mut self, key: &'static str, node: &Node) -> Option<Zeroizing<String>> {
        match &node.value {
            Value::Text(text) => Some(text.clone()),
            Value::Integer(text) => Some(Zeroizing::new(text.clone())),
            other => {
                let message = format!("unknown type for string {}", other.kind());
                self.wrong_type(key, node.at, &message, "write a text in double quotes");
                None
            }
        }
    }

    // Wrong types, in the words of the reader that SPIRE uses.

    fn not_a_block(&mut self, key: &'static str, node: &Node) {
        let message = format!("not an object type for struct ({})", node.value.kind());
        self.wrong_type(key, node.at, &message, &format!("write a block: {key} {{ … }}"));
    }

    fn wrong_type(&mut self, key: &'static str, at: Position, message: &str, remedy: &str) {
        let message = format!("At {at}: root.{}: {message}", self.path_of(key));
        self.wrong_type_as_is(key, at, message, remedy);
    }

    fn wrong_type_as_is(&mut self, key: &str, at: Position, message: String, remedy: &str) {
        self.findings.mistakes.push(Mistake {
            at: Some(at),
            remedy: Some(remedy.to_owned()),
            wrong_type: true,
            ..Mistake::new(message).path(self.path_of(key))
        });
    }
}

/// A whole number as Go reads it: decimal, hexadecimal after `0x`, octal after `0`.
fn whole_number(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (base, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let number = i128::from_str_radix(digits, base).ok()?;
    i64::try_from(if negative { -number } else { number }).ok()
}

/// Turns what was found into a result.
pub(super) fn conclude<T>(value: Option<T>, mistakes: Vec<Mistake>) -> Result<T, ConfigErrors> {
    match value {
        Some(value) if mistakes.is_empty() => Ok(value),
        _ => Err(ConfigErrors(mistakes)),
    }
}
