//! Statements as the record files write them, for any database.
//!
//! Parameters are `?`, each used once and in order, from which every dialect can be derived.
//! Statements that take many rows come in few sizes, so that they stay prepared.

use std::borrow::Cow;

/// A value that goes into a row.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Integer(i64),
    Text(String),
    Blob(Vec<u8>),
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}
impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Integer(number.into())
    }
}
impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Integer(truth.into())
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
impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Blob(bytes)
    }
}
impl<const N: usize> From<[u8; N]> for Value {
    fn from(bytes: [u8; N]) -> Self {
        Self::Blob(bytes.to_vec())
    }
}
impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl Value {
    /// About how many bytes it has on its way to the database.
    fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Blob(bytes) => bytes.len(),
            Self::Null | Self::Integer(_) => 8,
        }
    }
}

/// A statement with its parameters.
#[derive(Debug, Clone)]
pub(super) struct Statement {
    pub(super) text: Cow<'static, str>,
    pub(super) arguments: Vec<Value>,
}

impl Statement {
    pub(super) fn new(text: &'static str) -> Self {
        Self { text: Cow::Borrowed(text), arguments: Vec::new() }
    }

    pub(super) fn built(text: String, arguments: Vec<Value>) -> Self {
        Self { text: Cow::Owned(text), arguments }
    }

    /// Gives the next parameter.
    pub(super) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.arguments.push(value.into());
        self
    }
}

/// One after the other, as one text; only SQLite takes that with parameters.
impl FromIterator<Statement> for Statement {
    fn from_iter<I: IntoIterator<Item = Self>>(statements: I) -> Self {
        let (texts, arguments): (Vec<_>, Vec<_>) =
            statements.into_iter().map(|it| (it.text, it.arguments)).unzip();
        Self::built(texts.join("; "), arguments.concat())
    }
}

/// The same statement with `$1`, `$2` and so on for its parameters. No text in a statement holds a
/// question mark.
pub(super) fn with_numbers(text: &str) -> String {
    let mut pieces = text.split('?');
    let mut numbered = pieces.next().unwrap_or_default().to_owned();
    for (index, piece) in pieces.enumerate() {
        numbered.push_str(&format!("${}{piece}", index + 1));
    }
    numbered
}

/// Sizes of the pieces in which many rows are written.
const PIECES: [usize; 7] = [64, 32, 16, 8, 4, 2, 1];

/// The same where a whole database is written.
const LARGE_PIECES: [usize; 3] = [256, 16, 1];

/// How many bytes a statement with several rows has at most: databases take 16 MiB and more.
const MOST_BYTES: usize = 4 << 20;

/// Statements that insert many rows, in pieces of fixed sizes.
pub(super) fn insert(table: &str, columns: &[&str], rows: Vec<Vec<Value>>) -> Vec<Statement> {
    pieces(&PIECES, table, columns, rows)
}

/// The same in large pieces.
pub(super) fn insert_many(table: &str, columns: &[&str], rows: Vec<Vec<Value>>) -> Vec<Statement> {
    pieces(&LARGE_PIECES, table, columns, rows)
}

fn pieces(sizes: &[usize], table: &str, columns: &[&str], rows: Vec<Vec<Value>>) -> Vec<Statement> {
    let head = format!("INSERT INTO {table} ({}) VALUES ", columns.join(", "));
    let item = format!("({})", vec!["?"; columns.len()].join(", "));
    let mut rows = rows.into_iter();
    let mut statements = Vec::new();
    while rows.len() > 0 {
        let bytes = |rows: &[Vec<Value>]| rows.iter().flatten().map(Value::bytes).sum::<usize>();
        let fits = |size: &usize| {
            rows.as_slice().get(..*size).is_some_and(|rows| bytes(rows) <= MOST_BYTES)
        };
        let size = sizes.iter().copied().find(fits).unwrap_or(1);
        let text = format!("{head}{}", vec![item.as_str(); size].join(", "));
        let arguments = rows.by_ref().take(size).flatten().collect();
        statements.push(Statement::built(text, arguments));
    }
    statements
}

/// `?, ?, …` for a list of `values`, whose last one is repeated up to a power of two.
pub(super) fn list(mut values: Vec<Value>) -> (String, Vec<Value>) {
    if let Some(last) = values.last().cloned() {
        values.resize(values.len().next_power_of_two(), last);
    }
    (vec!["?"; values.len()].join(", "), values)
}

/// Most values that one statement looks up; longer lists are looked up in several.
pub(super) const MAX_LIST: usize = 512;

/// `head (values) tail` for every [`MAX_LIST`] of `values`.
pub(super) fn look_up(head: &str, values: Vec<Value>, tail: &str) -> Vec<Statement> {
    let statement = |values: &[Value]| {
        let (marks, arguments) = list(values.to_vec());
        Statement::built(format!("{head} ({marks}) {tail}"), arguments)
    };
    values.chunks(MAX_LIST).map(statement).collect()
}

/// Most links that one statement deletes.
const MAX_UNLINKED: usize = 128;

/// Statements that delete `rows`, each a member and an owner, from a table of links. As in [`list`] the
/// last one is repeated up to a power of two.
pub(super) fn unlink(table: &str, member: &str, rows: &[Vec<Value>]) -> Vec<Statement> {
    let item = format!("({member} = ? AND owner = ?)");
    let statement = |rows: &[Vec<Value>]| {
        let size = rows.len().next_power_of_two();
        let padding = rows.last().into_iter().cycle();
        let arguments = rows.iter().chain(padding).take(size).flatten().cloned().collect();
        let items = vec![item.as_str(); size].join(" OR ");
        Statement::built(format!("DELETE FROM {table} WHERE {items}"), arguments)
    };
    rows.chunks(MAX_UNLINKED).map(statement).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_with_many_rows_are_bounded() {
        let rows = |count: usize, bytes: usize| vec![vec![Value::Blob(vec![0; bytes])]; count];
        let pieces = |rows| {
            let statements = insert_many("bundles", &["authorities"], rows);
            statements.iter().map(|statement| statement.arguments.len()).collect::<Vec<_>>()
        };
        assert_eq!(pieces(rows(256 + 17, 10)), [256, 16, 1]);
        assert_eq!(pieces(rows(256, 1 << 17)), [16; 16]);
        assert_eq!(pieces(rows(3, MOST_BYTES + 1)), [1, 1, 1]);
    }
}
