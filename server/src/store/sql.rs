//! Statements as the record files write them, for any database.
//!
//! Parameters are `?`, each used once and in order, from which every dialect can be derived.
//! Statements that take many rows come in few sizes, so that they stay prepared.

use std::borrow::Cow;

use super::StoreError;
use super::database::Connection;
use super::page::{Page, SetMatch, SetRule};

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
const PIECES: [usize; 3] = [64, 8, 1];

/// The same where a whole database is written.
const LARGE_PIECES: [usize; 3] = [256, 16, 1];

/// `head item separator item …`, one item for each of `rows`, in pieces of fixed sizes. Each is
/// returned with the number of its rows.
pub(super) fn in_pieces(
    head: &str,
    item: &str,
    separator: &str,
    rows: Vec<Vec<Value>>,
) -> Vec<(Statement, usize)> {
    pieces(&PIECES, head, item, separator, rows)
}

/// Statements that insert many rows, in large pieces.
pub(super) fn insert(table: &str, columns: &[&str], rows: Vec<Vec<Value>>) -> Vec<Statement> {
    let head = format!("INSERT INTO {table} ({}) VALUES ", columns.join(", "));
    let item = format!("({})", vec!["?"; columns.len()].join(", "));
    let statements = pieces(&LARGE_PIECES, &head, &item, ", ", rows);
    statements.into_iter().map(|(statement, _)| statement).collect()
}

fn pieces(
    sizes: &[usize],
    head: &str,
    item: &str,
    separator: &str,
    rows: Vec<Vec<Value>>,
) -> Vec<(Statement, usize)> {
    let mut rows = rows.into_iter();
    let mut statements = Vec::new();
    while rows.len() > 0 {
        let fits = |size: &usize| *size <= rows.len();
        let size = sizes.iter().copied().find(fits).unwrap_or(1);
        let text = format!("{head}{item}{}", format!("{separator}{item}").repeat(size - 1));
        let arguments = rows.by_ref().take(size).flatten().collect();
        statements.push((Statement::built(text, arguments), size));
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

/// A table that links the members of a record's set to the record.
pub(super) struct Links {
    /// Its name.
    pub(super) table: &'static str,
    /// The column with the member.
    pub(super) member: &'static str,
    /// The column of the record's table with the size of its set.
    pub(super) count: &'static str,
}

/// Up to where it is counted how many records have a member of a set.
const COUNTED: u32 = 1000;

/// Of how many members that is counted.
const COMPARED: usize = 32;

impl Links {
    /// The place among the members of `wanted` of one that few records have, so that a list that
    /// must have them all walks as few records as it can.
    pub(super) async fn rarest<T>(
        &self,
        connection: &mut Connection,
        wanted: Option<&SetMatch<T>>,
        value: impl Fn(&T) -> Value,
    ) -> Result<usize, StoreError> {
        let Some(SetMatch { members, rule: SetRule::Exact | SetRule::Superset }) = wanted else {
            return Ok(0);
        };
        if members.len() < 2 {
            return Ok(0);
        }
        let Self { table, member, .. } = self;
        let members: Vec<Value> = members.iter().take(COMPARED).map(value).collect();
        let count = |place| {
            format!(
                "(SELECT COUNT(*) FROM (SELECT owner FROM {table} WHERE {member} = ? \
                 LIMIT {COUNTED}) c{place})"
            )
        };
        let counts: Vec<String> = (0..members.len()).map(count).collect();
        let counts = Statement::built(format!("SELECT {}", counts.join(", ")), members);
        let length = counts.arguments.len();
        let row = connection.fetch_first(counts).await?;
        let row = row.ok_or_else(|| StoreError::Corrupt("a row is missing".into()))?;
        let counts = (0..length).map(|place| row.integer(place));
        let counts = counts.collect::<Result<Vec<i64>, _>>()?;
        Ok((0..length).min_by_key(|place| counts[*place]).unwrap_or(0))
    }
}

/// A selection from one table under filters, in the order of creation.
pub(super) struct Selection {
    tables: String,
    conditions: Vec<String>,
    arguments: Vec<Value>,
    /// The column that is walked: the record's number, or a link's copy of it.
    order: String,
    after: i64,
    limit: Option<u32>,
}

impl Selection {
    /// Of the records in `table` those that follow `page.after`.
    pub(super) fn new(table: &str, page: Page) -> Self {
        Self {
            tables: format!("{table} r"),
            conditions: Vec::new(),
            arguments: Vec::new(),
            order: "r.number".to_owned(),
            after: page.after.map_or(0, |token| token.0),
            // One more tells whether another page follows.
            limit: page.limit.map(|limit| limit.saturating_add(1)),
        }
    }

    /// Only records that fulfil `condition`, which has no parameter.
    pub(super) fn only(&mut self, condition: &str) {
        self.conditions.push(condition.to_owned());
    }

    /// Only records that fulfil `condition`, which has one parameter.
    pub(super) fn filter(&mut self, condition: &str, value: impl Into<Value>) {
        self.conditions.push(condition.to_owned());
        self.arguments.push(value.into());
    }

    /// Only records whose set matches. Those that must have all members are walked by the member at
    /// the place `start`.
    pub(super) fn filter_set<T>(
        &mut self,
        links: &Links,
        wanted: &SetMatch<T>,
        start: usize,
        value: impl Fn(&T) -> Value,
    ) {
        let Links { table, member, count } = links;
        let members: Vec<Value> = wanted.members.iter().map(value).collect();
        let size = members.len();
        let first = members.get(start).or(members.first()).cloned();
        let Some(first) = first else { return self.only("1 = 0") };
        let (marks, members) = list(members);
        let found = format!(
            "(SELECT COUNT(*) FROM {table} l WHERE l.{member} IN ({marks}) AND l.owner = r.number)"
        );
        match wanted.rule {
            SetRule::Exact | SetRule::Superset => {
                self.join(links, first);
                if size > 1 {
                    self.conditions.push(format!("{found} = {size}"));
                    self.arguments.extend(members);
                }
                if wanted.rule == SetRule::Exact {
                    self.conditions.push(format!("r.{count} = {size}"));
                }
            }
            SetRule::Any if size == 1 => self.join(links, first),
            SetRule::Any | SetRule::Subset => {
                self.conditions.push(format!(
                    "r.number IN (SELECT owner FROM {table} WHERE {member} IN ({marks}) \
                     AND owner > ?)"
                ));
                self.arguments.extend(members.iter().cloned());
                self.arguments.push(self.after.into());
                if wanted.rule == SetRule::Subset {
                    self.conditions.push(format!("{found} = r.{count}"));
                    self.arguments.extend(members);
                }
            }
        }
    }

    /// Walks the records that have `member` by their links, which keep the order of creation.
    fn join(&mut self, links: &Links, member: Value) {
        let name = format!("j{}", self.conditions.len());
        self.tables.push_str(&format!(", {} {name}", links.table));
        self.conditions.push(format!("{name}.owner = r.number AND {name}.{} = ?", links.member));
        self.arguments.push(member);
        self.order = format!("{name}.owner");
    }

    /// The statement that reads `columns`.
    pub(super) fn rows(mut self, columns: &str) -> Statement {
        if self.after > 0 {
            self.conditions.push(format!("{} > ?", self.order));
            self.arguments.push(self.after.into());
        }
        let limit = self.limit.map(|limit| format!(" LIMIT {limit}")).unwrap_or_default();
        let text = format!("{} ORDER BY {}{limit}", self.text(columns), self.order);
        Statement::built(text, self.arguments)
    }

    /// The statement that counts the records.
    pub(super) fn count(self) -> Statement {
        Statement::built(self.text("COUNT(*)"), self.arguments)
    }

    fn text(&self, columns: &str) -> String {
        let conditions = if self.conditions.is_empty() {
            String::new()
        } else {
            format!(" WHERE {}", self.conditions.join(" AND "))
        };
        format!("SELECT {columns} FROM {}{conditions}", self.tables)
    }
}
