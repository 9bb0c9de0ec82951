//! Single values, with the conversions that SPIRE's reader makes: quoted numbers are numbers, bare
//! whole numbers are texts, and nothing else is converted.

use std::time::Duration;

use jiff::SignedDuration;
use zeroize::Zeroizing;

use super::Reader;
use crate::config::duration;
use crate::config::mistake::Mistake;
use crate::config::tree::{Node, Position, Value};

impl Reader<'_> {
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

    /// A value of the wrong type, in the words of the reader that SPIRE uses.
    pub(super) fn wrong_type(
        &mut self,
        key: &'static str,
        at: Position,
        message: &str,
        remedy: &str,
    ) {
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
