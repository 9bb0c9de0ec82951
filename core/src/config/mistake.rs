//! What is said about a file: mistakes, unknown keys and warnings.

use std::fmt;

use super::tree::Position;

/// Longest value in characters that a mistake shows.
const MAX_SHOWN: usize = 100;
/// Longest key in bytes for which a similar known key is looked up.
const MAX_COMPARED: usize = 64;

/// One mistake in a configuration file. Prints as one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// What is wrong; SPIRE's sentence where it has one.
    pub message: String,
    /// Path of the key from the top of the file, such as `server.ca_ttl`; empty for the file.
    pub path: String,
    /// The offending value as written. Never a secret.
    pub value: Option<String>,
    /// Where the value stands, or the block that lacks it.
    pub at: Option<Position>,
    /// What to write instead.
    pub remedy: Option<String>,
    /// Whether the value has a type that the key does not take, which SPIRE reports as a file
    /// that cannot be decoded.
    pub wrong_type: bool,
}

impl Mistake {
    /// A mistake without a place.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            path: String::new(),
            value: None,
            at: None,
            remedy: None,
            wrong_type: false,
        }
    }

    /// Adds what to write instead.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Adds the path of the key.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }
}

/// `message (path = value, line 7; remedy)`.
impl fmt::Display for Mistake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut place = one_line(&self.path);
        if let Some(value) = &self.value {
            place = format!("{place} = {}", one_line(value));
        }
        if let Some(at) = self.at {
            let separator = if place.is_empty() { "" } else { ", " };
            place = match at {
                Position::COMMAND_LINE => format!("{place}{separator}command line"),
                at => format!("{place}{separator}line {}", at.line),
            };
        }
        if let Some(remedy) = &self.remedy {
            let separator = if place.is_empty() { "" } else { "; " };
            place = format!("{place}{separator}{remedy}");
        }
        formatter.write_str(&one_line(&self.message))?;
        if place.is_empty() { Ok(()) } else { write!(formatter, " ({place})") }
    }
}

/// A key of the file may hold anything; what is printed is one line of printable characters.
fn one_line(text: &str) -> String {
    text.chars()
        .flat_map(|character| {
            let escaped = character.is_control().then(|| character.escape_default());
            let plain = escaped.is_none().then_some(character);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

/// A value as a mistake shows it.
pub(super) fn shown(value: &str) -> String {
    if value.chars().count() <= MAX_SHOWN {
        return format!("{value:?}");
    }
    let start: String = value.chars().take(MAX_SHOWN).collect();
    format!("{start:?}…")
}

/// All mistakes of a section or file. Never empty. Prints one line for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<Mistake>);

impl ConfigErrors {
    /// One mistake alone, without a place.
    pub fn one(message: impl Into<String>) -> Self {
        Self(vec![Mistake::new(message)])
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            if index > 0 {
                formatter.write_str("\n")?;
            }
            write!(formatter, "{mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Keys that a section does not know and may not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownKeys {
    /// The section's name in the log, such as `top-level` or `ca_subject`.
    pub section: &'static str,
    /// The keys, sorted.
    pub keys: Vec<String>,
}

impl UnknownKeys {
    /// Writes the line that operators' alerts look for.
    pub fn log(&self) {
        let keys = self.keys.join(",");
        tracing::error!(%keys, section = self.section, "Unknown configuration detected");
    }
}

/// What an operator should know although the file is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The whole sentence.
    pub message: String,
    /// Whether it is about a spelling that will go away, which alerts look for.
    pub deprecation: bool,
}

impl Warning {
    /// Writes it to the log.
    pub fn log(&self) {
        if self.deprecation {
            let alert_type = "deprecated_configuration";
            tracing::warn!(alert = true, alert_type, "{}", self.message);
        } else {
            tracing::warn!("{}", self.message);
        }
    }
}

/// The known key that `key` most likely means.
pub(super) fn nearest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    if key.len() > MAX_COMPARED {
        return None;
    }
    let key = key.to_ascii_lowercase();
    let allowed = 1 + key.chars().count() / 4;
    let distances = known.iter().map(|known| (distance(&key, &known.to_ascii_lowercase()), *known));
    distances.filter(|(distance, _)| *distance <= allowed).min().map(|(_, known)| known)
}

/// Levenshtein's distance, underscores not counted when all else is equal.
fn distance(left: &str, right: &str) -> usize {
    if left.replace('_', "") == right.replace('_', "") {
        return 0;
    }
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (line, left) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, right) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(left != *right);
            diagonal = row[column + 1];
            row[column + 1] = substituted.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_one_line_that_says_where_and_what_to_do() {
        let mistake = Mistake {
            message: "could not parse default CA ttl \"x\": time: invalid duration \"x\"".into(),
            path: "server.ca_ttl".into(),
            value: Some("\"x\"".into()),
            at: Some(Position { line: 7, column: 3 }),
            remedy: Some("write a duration such as 24h".into()),
            wrong_type: false,
        };
        assert_eq!(
            mistake.to_string(),
            "could not parse default CA ttl \"x\": time: invalid duration \"x\" \
             (server.ca_ttl = \"x\", line 7; write a duration such as 24h)"
        );
        assert_eq!(Mistake::new("bare").to_string(), "bare");
        assert_eq!(Mistake::new("x").path("a\nb").to_string(), "x (a\\nb)");
    }

    #[test]
    fn the_nearest_known_key_is_found() {
        let known = ["trust_domain", "data_dir", "bind_port", "default_x509_svid_ttl"];
        assert_eq!(nearest("trust_domian", &known), Some("trust_domain"));
        assert_eq!(nearest("TrustDomain", &known), Some("trust_domain"));
        assert_eq!(nearest("datadir", &known), Some("data_dir"));
        assert_eq!(nearest("foo", &known), None);
        assert_eq!(nearest(&"x".repeat(1 << 20), &known), None);
    }
}
