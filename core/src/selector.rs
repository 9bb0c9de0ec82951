//! Selectors: what an attestor found out about a node or a process, and what an entry asks for.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::id::SpiffeId;

/// The type of selectors that are the ID of an agent.
const AGENT: &str = "spiffe_id";

/// One proven property, such as `unix:uid:1000`: a type without a colon and a value. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Selector {
    text: Arc<str>,
    colon: usize,
}

/// Why a text is no selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// There is no colon.
    #[error("selector {0:?} must be formatted as type:value")]
    NoColon(String),
    /// Nothing stands before the colon.
    #[error("selector type is empty")]
    NoType,
    /// The type holds a colon.
    #[error("selector type {0:?} contains \":\"")]
    ColonInType(String),
    /// Nothing stands after the colon.
    #[error("selector value is empty")]
    NoValue,
}

impl Selector {
    /// A selector of `kind`, which has no colon, with a value that is not empty.
    ///
    /// # Errors
    /// [`SelectorError`] names the part that is missing or wrong.
    pub fn new(kind: &str, value: &str) -> Result<Self, SelectorError> {
        if kind.is_empty() {
            return Err(SelectorError::NoType);
        }
        if kind.contains(':') {
            return Err(SelectorError::ColonInType(kind.to_owned()));
        }
        if value.is_empty() {
            return Err(SelectorError::NoValue);
        }
        Ok(Self { text: format!("{kind}:{value}").into(), colon: kind.len() })
    }

    /// What all nodes of this agent have: entries that ask for it give the agent a second ID.
    pub fn of_agent(id: &SpiffeId) -> Self {
        Self { text: format!("{AGENT}:{id}").into(), colon: AGENT.len() }
    }

    /// Whether it is one [of an agent](Self::of_agent), which no workload has.
    pub fn names_an_agent(&self) -> bool {
        self.kind() == AGENT
    }

    /// Its type, which is the name of the plugin that found it.
    pub fn kind(&self) -> &str {
        &self.text[..self.colon]
    }

    /// What was found.
    pub fn value(&self) -> &str {
        &self.text[self.colon + 1..]
    }

    /// `type:value`.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Selector {
    type Err = SelectorError;
    /// Reads `type:value`, split at the first colon.
    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let (kind, value) =
            text.split_once(':').ok_or_else(|| SelectorError::NoColon(text.to_owned()))?;
        Self::new(kind, value)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl PartialOrd for Selector {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Selector {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.kind(), self.value()).cmp(&(other.kind(), other.value()))
    }
}

/// What an entry asks for. Never empty: an entry that asks for nothing would fit everyone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequiredSelectors(BTreeSet<Selector>);

/// An entry named no selector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("selector list is empty")]
pub struct NoSelectors;

impl RequiredSelectors {
    /// The set of `selectors`, each kept once.
    ///
    /// # Errors
    /// [`NoSelectors`] where there is none.
    pub fn new(selectors: impl IntoIterator<Item = Selector>) -> Result<Self, NoSelectors> {
        let set = BTreeSet::from_iter(selectors);
        if set.is_empty() { Err(NoSelectors) } else { Ok(Self(set)) }
    }

    /// Whether all of them are among `found`.
    pub fn are_met_by(&self, found: &BTreeSet<Selector>) -> bool {
        self.0.is_subset(found)
    }

    /// The selectors in order of type and value.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Selector> {
        self.0.iter()
    }

    /// Whether all of them are of the same type.
    pub fn are_of_one_kind(&self) -> bool {
        let mut kinds = self.0.iter().map(Selector::kind);
        let first = kinds.next();
        kinds.all(|kind| Some(kind) == first)
    }

    /// The selectors as a set.
    pub fn as_set(&self) -> &BTreeSet<Selector> {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_keeps_its_colons() {
        let selector: Selector = "unix:uid:1000".parse().unwrap();
        assert_eq!((selector.kind(), selector.value()), ("unix", "uid:1000"));
        assert!("unix".parse::<Selector>().is_err());
        assert!(Selector::new("", "x").is_err() && Selector::new("unix", "").is_err());
    }

    #[test]
    fn the_id_of_an_agent_is_a_selector() {
        let own = Selector::of_agent(&SpiffeId::parse("spiffe://td/spire/agent/a").unwrap());
        assert_eq!(own, "spiffe_id:spiffe://td/spire/agent/a".parse().unwrap());
        assert!(own.names_an_agent());
    }

    #[test]
    fn all_of_them_must_be_found() {
        let of = |text: &[&str]| -> BTreeSet<Selector> {
            text.iter().map(|text| text.parse().unwrap()).collect()
        };
        let asked = RequiredSelectors::new(of(&["unix:uid:1", "unix:gid:1"]));
        let asked = asked.unwrap();
        assert!(asked.are_met_by(&of(&["unix:uid:1", "unix:gid:1", "unix:path:/x"])));
        assert!(!asked.are_met_by(&of(&["unix:uid:1"])));
    }
}
