//! Lists: which records pass filters, read page by page in the order of their creation.

use super::StoreError;
use super::database::Connection;
use super::page::{Page, SetMatch, SetRule};
use super::sql::{Statement, Value, list};

/// A table that links the members of a record's set to the record.
pub(super) struct Links {
    /// Its name.
    pub(super) table: &'static str,
    /// The column with the member.
    pub(super) member: &'static str,
    /// The column of the record's table with the size of its set.
    pub(super) count: &'static str,
}

/// Up to where it is counted how many records have a member of a set; with so many it is common.
const COUNTED: i64 = 10_000;

/// Of how many members that is counted.
const COMPARED: usize = 32;

/// How a filter on a set finds records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Start {
    /// The place among its members of one that few records have: where all of them are asked for, a
    /// list walks as few records as it can.
    pub(super) rarest: usize,
    /// Whether one of them is common: where any of them will do, a list looks at records one after
    /// the other until the page is full, since to collect all that have one would take long.
    pub(super) is_common: bool,
}

impl Links {
    /// Finds out where to start with a filter.
    pub(super) async fn start<T>(
        &self,
        connection: &mut Connection,
        wanted: Option<&SetMatch<T>>,
        value: impl Fn(&T) -> Value,
    ) -> Result<Start, StoreError> {
        let Some(SetMatch { members, rule }) = wanted else { return Ok(Start::default()) };
        if members.is_empty() || (members.len() == 1 && *rule != SetRule::Subset) {
            return Ok(Start::default());
        }
        let Self { table, member, .. } = self;
        let compared: Vec<Value> = members.iter().take(COMPARED).map(value).collect();
        let count = |place| {
            format!(
                "(SELECT COUNT(*) FROM (SELECT owner FROM {table} WHERE {member} = ? \
                 LIMIT {COUNTED}) c{place})"
            )
        };
        let counts: Vec<String> = (0..compared.len()).map(count).collect();
        let counts = Statement::built(format!("SELECT {}", counts.join(", ")), compared);
        let length = counts.arguments.len();
        let row = connection.fetch_first(counts).await?;
        let row = row.ok_or_else(|| StoreError::Corrupt("a row is missing".into()))?;
        let counts = (0..length).map(|place| row.integer(place));
        let counts = counts.collect::<Result<Vec<i64>, _>>()?;
        Ok(Start {
            rarest: (0..length).min_by_key(|place| counts[*place]).unwrap_or(0),
            is_common: members.len() > COMPARED || counts.iter().any(|count| *count >= COUNTED),
        })
    }
}

/// A filter that records pass which have at least one of the members.
struct Any {
    links: &'static Links,
    members: Vec<Value>,
    is_common: bool,
}

/// A selection from one table under filters, in the order of creation.
pub(super) struct Selection {
    tables: String,
    conditions: Vec<String>,
    arguments: Vec<Value>,
    /// Sets of which one member suffices.
    any: Vec<Any>,
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
            any: Vec::new(),
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

    /// Only records whose set matches.
    pub(super) fn filter_set<T>(
        &mut self,
        links: &'static Links,
        wanted: &SetMatch<T>,
        start: Start,
        value: impl Fn(&T) -> Value,
    ) {
        let members: Vec<Value> = wanted.members.iter().map(value).collect();
        let size = members.len();
        let first = members.get(start.rarest).or(members.first()).cloned();
        let Some(first) = first else { return self.only("1 = 0") };
        let count = links.count;
        match wanted.rule {
            SetRule::Exact | SetRule::Superset => {
                self.join(links, first);
                if size > 1 {
                    self.compare(links, members, &format!("= {size}"));
                }
                if wanted.rule == SetRule::Exact {
                    self.only(&format!("r.{count} = {size}"));
                }
            }
            SetRule::Any if size == 1 => self.join(links, first),
            SetRule::Any => {
                self.any.push(Any { links, members, is_common: start.is_common });
            }
            SetRule::Subset => {
                if start.is_common {
                    self.only(&format!("r.{count} BETWEEN 1 AND {size}"));
                } else {
                    self.collect(links, members.clone());
                }
                self.compare(links, members, &format!("= r.{count}"));
            }
        }
    }

    /// Only records of whose set as many of the `members` are part as `comparison` says. Each is
    /// looked up by itself, as MySQL would read all that have any of several. Where they are very
    /// many the statement would be too long for that.
    fn compare(&mut self, links: &Links, members: Vec<Value>, comparison: &str) {
        let Links { table, member, .. } = links;
        let found = |which: &str| {
            format!(
                "(SELECT COUNT(*) FROM {table} l WHERE l.{member} {which} AND l.owner = r.number)"
            )
        };
        if members.len() <= COMPARED {
            let found = vec![found("= ?"); members.len()].join(" + ");
            self.conditions.push(format!("{found} {comparison}"));
            self.arguments.extend(members);
        } else {
            let (marks, members) = list(members);
            self.conditions.push(format!("{} {comparison}", found(&format!("IN ({marks})"))));
            self.arguments.extend(members);
        }
    }

    /// Only records that have at least one of the `members`: all such are collected first.
    fn collect(&mut self, links: &Links, members: Vec<Value>) {
        let Links { table, member, .. } = links;
        let (marks, members) = list(members);
        self.conditions.push(format!(
            "r.number IN (SELECT owner FROM {table} WHERE {member} IN ({marks}) AND owner > ?)"
        ));
        self.arguments.extend(members);
        self.arguments.push(self.after.into());
    }

    /// The same where nothing else is asked for: then a page holds no other than the first `limit`
    /// records of each member.
    fn collect_first(&mut self, links: &Links, members: Vec<Value>, limit: u32) {
        let Links { table, member, .. } = links;
        let (_, members) = list(members);
        let first = |place| {
            format!(
                "SELECT owner FROM (SELECT owner FROM {table} WHERE {member} = ? AND owner > ? \
                 ORDER BY owner LIMIT {limit}) f{place}"
            )
        };
        let firsts: Vec<String> = (0..members.len()).map(first).collect();
        let firsts = firsts.join(" UNION ");
        self.conditions.push(format!("r.number IN (SELECT owner FROM ({firsts}) firsts)"));
        self.arguments.extend(members.into_iter().flat_map(|one| [one, self.after.into()]));
    }

    /// Filters by the sets of which one member suffices; `limit` is how many records are wanted.
    fn apply_any(&mut self, limit: Option<u32>) {
        let is_alone = self.conditions.is_empty() && self.any.len() == 1;
        for Any { links, members, is_common } in std::mem::take(&mut self.any) {
            match limit {
                Some(limit) if is_alone && members.len() <= COMPARED => {
                    self.collect_first(links, members, limit);
                }
                Some(_) if is_common => self.compare(links, members, "> 0"),
                _ => self.collect(links, members),
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
        self.apply_any(self.limit);
        if self.after > 0 {
            self.conditions.push(format!("{} > ?", self.order));
            self.arguments.push(self.after.into());
        }
        let limit = self.limit.map(|limit| format!(" LIMIT {limit}")).unwrap_or_default();
        let text = format!("{} ORDER BY {}{limit}", self.text(columns), self.order);
        Statement::built(text, self.arguments)
    }

    /// The statement that counts the records.
    pub(super) fn count(mut self) -> Statement {
        self.apply_any(None);
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use spire_core::selector::Selector;
    use sqlx::{AssertSqlSafe, SqliteConnection};

    use super::super::entry_rows::SELECTORS;
    use super::super::packing::of_selector;
    use super::super::page::PageToken;
    use super::super::{Settings, Store};
    use super::*;

    const COUNT: i64 = 3000;

    /// More steps than a page of ten takes; to collect all links of a common selector takes 15,000.
    const LITTLE: u32 = 5000;

    fn selectors(texts: &[&str]) -> BTreeSet<Selector> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// All entries have `s:all`, nine of ten `s:most`, and the last five `s:last`.
    fn of_entry(number: i64) -> BTreeSet<Selector> {
        let texts = [("s:all", true), ("s:most", number % 10 > 0), ("s:last", number > COUNT - 5)];
        texts.iter().filter(|(_, has)| *has).map(|(text, _)| text.parse().unwrap()).collect()
    }

    async fn fill(store: &Store) {
        let filled = store.write((), |tx, ()| {
            Box::pin(async move {
                let numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL \
                               SELECT i + 1 FROM n WHERE i < ?)";
                let entries = format!(
                    "INSERT INTO entries {numbers} SELECT i, i, i, '', x'', x'', \
                     1 + (i % 10 > 0) + (i > ?), '', 0, '', 0, 0, 0, 0, 0, 0, '', 0, 0, NULL FROM n"
                );
                let entries = Statement::built(entries, Vec::new()).bind(COUNT).bind(COUNT - 5);
                tx.execute(entries).await?;
                for (selector, which) in [
                    ("s:all", "number > ?"),
                    ("s:most", "number % 10 > ?"),
                    ("s:last", "number > 2995 + ?"),
                ] {
                    let selector: Selector = selector.parse().unwrap();
                    let text = format!(
                        "INSERT INTO entry_selectors SELECT ?, number FROM entries WHERE {which}"
                    );
                    let links = Statement::built(text, Vec::new());
                    tx.execute(links.bind(of_selector(&selector)).bind(0i64)).await?;
                }
                Ok(())
            })
        });
        filled.await.unwrap();
    }

    /// The numbers of the entries on a page, and how many steps SQLite's machine took for it.
    async fn read(connection: &mut SqliteConnection, statement: Statement) -> (Vec<i64>, u32) {
        let steps = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&steps);
        let mut handle = connection.lock_handle().await.unwrap();
        handle.set_progress_handler(1, move || counted.fetch_add(1, Ordering::Relaxed) < u32::MAX);
        drop(handle);
        let mut query = sqlx::query_scalar(AssertSqlSafe(statement.text.into_owned()));
        for argument in statement.arguments {
            query = match argument {
                Value::Integer(number) => query.bind(number),
                Value::Blob(bytes) => query.bind(bytes),
                other => panic!("{other:?}"),
            };
        }
        (query.fetch_all(connection).await.unwrap(), steps.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn a_page_of_what_has_a_common_selector_reads_little() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("datastore.sqlite3");
        let settings = Settings::new("sqlite3", path.to_str().unwrap()).unwrap();
        let store = Store::open(&settings).await.unwrap();
        fill(&store).await;
        let mut connection =
            <SqliteConnection as sqlx::Connection>::connect(path.to_str().unwrap()).await.unwrap();
        let value = |selector: &Selector| Value::from(of_selector(selector));
        for (texts, rule, after, always_little) in [
            (&["s:all", "s:last"][..], SetRule::Any, None, true),
            (&["s:most", "s:last", "s:none"], SetRule::Any, Some(2970), true),
            (&["s:last", "s:none"], SetRule::Any, None, true),
            (&["s:all"], SetRule::Subset, None, false),
            (&["s:all", "s:last"], SetRule::Subset, Some(17), false),
        ] {
            let wanted = SetMatch { members: selectors(texts), rule };
            let fits = |number: &i64| match rule {
                SetRule::Any => !of_entry(*number).is_disjoint(&wanted.members),
                _ => of_entry(*number).is_subset(&wanted.members),
            };
            // One more tells that another page follows.
            let expected: Vec<i64> =
                (after.unwrap_or(0) + 1..=COUNT).filter(fits).take(11).collect();
            for is_common in [false, true] {
                let page = Page { after: after.map(PageToken), limit: Some(10) };
                let mut selection = Selection::new("entries", page);
                let start = Start { rarest: 0, is_common };
                selection.filter_set(&SELECTORS, &wanted, start, value);
                let (numbers, steps) = read(&mut connection, selection.rows("r.number")).await;
                assert_eq!(numbers, expected, "{wanted:?} {start:?}");
                let is_little = steps < LITTLE;
                assert!(is_little || !(always_little || is_common), "{wanted:?}: {steps}");

                // With another filter the page holds no other entries.
                let mut selection = Selection::new("entries", page);
                selection.filter("r.spiffe_id <> ?", 0i64);
                selection.filter_set(&SELECTORS, &wanted, start, value);
                let (numbers, _) = read(&mut connection, selection.rows("r.number")).await;
                assert_eq!(numbers, expected, "{wanted:?} {start:?}");
                let mut selection = Selection::new("entries", Page::default());
                selection.filter_set(&SELECTORS, &wanted, start, value);
                let (count, _) = read(&mut connection, selection.count()).await;
                assert_eq!(count, [(1..=COUNT).filter(fits).count() as i64]);
            }
        }
        store.close().await;
    }

    #[tokio::test]
    async fn what_ten_thousand_records_have_is_common() {
        let store = Store::open(&Settings::new("sqlite3", ":memory:").unwrap()).await.unwrap();
        let wanted = SetMatch { members: selectors(&["s:a", "s:b"]), rule: SetRule::Any };
        for (count, is_common) in [(9_999i64, false), (10_000, true)] {
            let found = store.write((wanted.clone(), count), |tx, (wanted, count)| {
                Box::pin(async move {
                    let text = "INSERT OR IGNORE INTO entry_selectors \
                                WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL \
                                SELECT i + 1 FROM n WHERE i < ?) SELECT ?, i FROM n";
                    let common: Selector = "s:b".parse().unwrap();
                    let fill = Statement::new(text).bind(*count).bind(of_selector(&common));
                    tx.execute(fill).await?;
                    let value = |selector: &Selector| Value::from(of_selector(selector));
                    SELECTORS.start(tx.reader(), Some(wanted), value).await
                })
            });
            assert_eq!(found.await, Ok(Start { rarest: 0, is_common }));
        }
    }
}
