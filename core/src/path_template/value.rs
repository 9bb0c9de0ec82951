//! What a template computes with.

use std::collections::BTreeMap;

/// A value of a template.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// A text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// True or false.
    Bool(bool),
    /// A list.
    List(Vec<Value>),
    /// Named values: a certificate, a set of tags.
    Map(BTreeMap<String, Value>),
}

impl Value {
    /// A map of `members`.
    pub fn map<'n>(members: impl IntoIterator<Item = (&'n str, Self)>) -> Self {
        Self::Map(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// Follows a path of field names. What is missing is an error, never an empty text.
    pub(super) fn field(&self, path: &[String]) -> Result<&Self, String> {
        let mut value = self;
        for name in path {
            let Self::Map(members) = value else {
                return Err(format!("can't evaluate field {name} of something without fields"));
            };
            value =
                members.get(name).ok_or_else(|| format!("map has no entry for key {name:?}"))?;
        }
        Ok(value)
    }

    /// The value as it stands in the path.
    pub(super) fn to_text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Integer(number) => number.to_string(),
            Self::Bool(value) => value.to_string(),
            Self::List(items) => {
                let items: Vec<_> = items.iter().map(Self::to_text).collect();
                format!("[{}]", items.join(" "))
            }
            Self::Map(members) => {
                let members: Vec<_> = members
                    .iter()
                    .map(|(name, value)| format!("{name}:{}", value.to_text()))
                    .collect();
                format!("map[{}]", members.join(" "))
            }
        }
    }

    /// Whether it is what its kind calls empty: `""`, 0, false, no items.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Integer(number) => *number == 0,
            Self::Bool(value) => !value,
            Self::List(items) => items.is_empty(),
            Self::Map(members) => members.is_empty(),
        }
    }

    /// About how many bytes it holds.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Integer(_) | Self::Bool(_) => 8,
            Self::List(items) => items.iter().map(|item| 8 + item.size()).sum(),
            Self::Map(members) => {
                members.iter().map(|(name, value)| 8 + name.len() + value.size()).sum()
            }
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}
