//! Lists in pages, and filters that compare sets.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// Which part of a list is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Page {
    /// Where the page before ended; `None` starts at the beginning.
    pub after: Option<PageToken>,
    /// How many records at most, not 0; `None` means all.
    pub limit: Option<u32>,
}

/// The place where a page ended. Its text is a decimal number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageToken(pub(super) i64);

/// The text is no page token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("could not parse page token")]
pub struct BadPageToken;

impl FromStr for PageToken {
    type Err = BadPageToken;
    fn from_str(text: &str) -> Result<Self, BadPageToken> {
        let is_decimal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = if is_decimal { text.parse().ok() } else { None };
        number.map(Self).ok_or(BadPageToken)
    }
}

impl fmt::Display for PageToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A page of records in the order of their creation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<T> {
    /// The records.
    pub items: Vec<T>,
    /// Where the next page starts; `None` where nothing follows.
    pub next: Option<PageToken>,
}

impl<T> Listed<T> {
    /// A page of `items`, of which one more was read than fits where another page follows.
    pub(super) fn of_page(mut items: Vec<T>, page: Page, number: impl Fn(&T) -> i64) -> Self {
        let mut next = None;
        if let Some(limit) = page.limit.map(|limit| limit as usize)
            && items.len() > limit
        {
            items.truncate(limit);
            next = items.last().map(|last| PageToken(number(last)));
        }
        Self { items, next }
    }

    /// The same page of something else.
    pub(super) fn map<U>(self, change: impl Fn(T) -> U) -> Listed<U> {
        Listed { items: self.items.into_iter().map(change).collect(), next: self.next }
    }
}

/// A filter on records that hold a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetMatch<T> {
    /// What the record's set is compared with. An empty set is the caller's mistake and matches
    /// no record.
    pub members: BTreeSet<T>,
    /// How.
    pub rule: SetRule,
}

/// How a record's set is compared with the one given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetRule {
    /// Both are equal.
    Exact,
    /// The record's set is not empty and lies within the one given.
    Subset,
    /// The record's set has all that is given.
    Superset,
    /// The record's set has at least one that is given.
    Any,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_token_is_read_as_it_was_written(number in 0..=i64::MAX) {
            let text = PageToken(number).to_string();
            prop_assert_eq!(text.parse(), Ok(PageToken(number)));
        }

        #[test]
        fn no_other_text_is_a_token(text in "[0-9+\\- \u{661}a-f.x]{0,24}") {
            match text.parse::<PageToken>() {
                Ok(token) => {
                    let digits = text.trim_start_matches('0');
                    let digits = if digits.is_empty() { "0" } else { digits };
                    prop_assert_eq!(token.to_string(), digits);
                }
                Err(BadPageToken) => prop_assert!(text.parse::<i64>().is_err() || text.starts_with(['+', '-'])),
            }
        }
    }
}
