//! Records in the server's own tables: how they are read and written by kind, many at a time.

use crate::config::FederatesWith;
use crate::store::database::Connection;
use crate::store::page::{Page, PageToken};
use crate::store::row::Row;
use crate::store::selection::Selection;
use crate::store::sql::{Statement, Value, insert_many as in_rows, look_up};
use crate::store::{
    CaJournal, KeyFingerprint, StoreError, bundles, ca_journals, entry_rows, node_rows,
    relationships,
};

use super::records::{JoinToken, Kind, Numbered, Position, Records};

const TOKENS: &str = "token, expires_at, redeemed_by";

/// The table with one row for each record of a kind.
pub(super) fn table(kind: Kind) -> &'static str {
    match kind {
        Kind::Bundle => "bundles",
        Kind::Relationship => "federation_relationships",
        Kind::Entry => "entries",
        Kind::Node => "nodes",
        Kind::JoinToken => "join_tokens",
        Kind::CaJournal => "ca_journals",
    }
}

/// How many records of a kind there are.
pub(super) async fn count(connection: &mut Connection, kind: Kind) -> Result<u64, StoreError> {
    let text = format!("SELECT COUNT(*) FROM {}", table(kind));
    let count = connection.fetch_number(Statement::built(text, Vec::new())).await?;
    Ok(count.unsigned_abs())
}

/// The tables with the links by which records of a kind are found.
fn links(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Entry => &["entry_selectors", "entry_federations"],
        Kind::Node => &["node_selectors"],
        _ => &[],
    }
}

/// How many links to records of a kind there are, and how many of them lead to one.
pub(super) async fn count_links(
    connection: &mut Connection,
    kind: Kind,
) -> Result<(u64, u64), StoreError> {
    let (mut all, mut leading) = (0, 0);
    for links in links(kind) {
        let owners = table(kind);
        let count = format!("SELECT COUNT(*) FROM {links}");
        let join = format!("{count} l JOIN {owners} r ON r.number = l.owner");
        all += connection.fetch_number(Statement::built(count, Vec::new())).await?.unsigned_abs();
        leading +=
            connection.fetch_number(Statement::built(join, Vec::new())).await?.unsigned_abs();
    }
    Ok((all, leading))
}

/// The id of the first of `records` that is an entry and would not be found by its identity. All of
/// them are there.
pub(super) async fn without_identity(
    connection: &mut Connection,
    records: &Records,
) -> Result<Option<String>, StoreError> {
    let Records::Entries(entries) = records else { return Ok(None) };
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(None) };
    let page = Page { after: Some(PageToken(first.number - 1)), limit: None };
    let mut selection = Selection::new("entries", page);
    selection.filter("r.number <= ?", last.number);
    let rows = connection.fetch(selection.rows("r.identity")).await?;
    for (Numbered { record, .. }, row) in entries.iter().zip(&rows) {
        if row.blob(0)? != entry_rows::identity(record) {
            return Ok(Some(record.id.to_string()));
        }
    }
    Ok(None)
}

/// At most `limit` records that follow `from`, and where the next ones begin.
pub(super) async fn read(
    connection: &mut Connection,
    kind: Kind,
    from: Position,
    limit: u32,
) -> Result<(Records, Option<Position>), StoreError> {
    if kind == Kind::JoinToken {
        return read_tokens(connection, from, limit).await;
    }
    let after = match from {
        Position::Number(number) => number,
        _ => 0,
    };
    let mut records = select(connection, kind, after, i64::MAX, limit).await?;
    let next = records.truncate(limit as usize).then(|| records.last_number());
    Ok((records, next.flatten().map(Position::Number)))
}

/// What stands where `records` would, and one more where there is something in between.
pub(super) async fn in_place_of(
    connection: &mut Connection,
    records: &Records,
) -> Result<Records, StoreError> {
    if let Records::JoinTokens(tokens) = records {
        let hashes = tokens.iter().map(|token| token.hash.into()).collect();
        let head = format!("SELECT {TOKENS} FROM join_tokens WHERE token IN");
        let mut found = Vec::with_capacity(tokens.len());
        for statement in look_up(&head, hashes, "") {
            for row in connection.fetch(statement).await? {
                found.push(token(&row)?);
            }
        }
        return Ok(Records::JoinTokens(found));
    }
    let (Some(first), Some(last)) = (records.first_number(), records.last_number()) else {
        return Ok(records.clone());
    };
    let limit = u32::try_from(records.len()).unwrap_or(u32::MAX);
    select(connection, records.kind(), first - 1, last, limit).await
}

/// The records with numbers above `after` up to `last`, at most one more than `limit`.
async fn select(
    connection: &mut Connection,
    kind: Kind,
    after: i64,
    last: i64,
    limit: u32,
) -> Result<Records, StoreError> {
    let page = Page { after: Some(PageToken(after)), limit: Some(limit) };
    let mut selection = Selection::new(table(kind), page);
    selection.filter("r.number <= ?", last);
    Ok(match kind {
        Kind::Bundle => {
            let rows = connection.fetch(selection.rows(bundles::COLUMNS)).await?;
            Records::Bundles(numbered(&rows, |row| {
                bundles::Kept::read(row).map(|kept| (kept.number, kept.bundle))
            })?)
        }
        Kind::Relationship => {
            let rows = connection.fetch(selection.rows(relationships::COLUMNS)).await?;
            Records::Relationships(numbered(&rows, |row| {
                relationships::Kept::read(row).map(|kept| (kept.number, kept.relationship))
            })?)
        }
        Kind::Entry => {
            let rows = connection.fetch(selection.rows(entry_rows::COLUMNS)).await?;
            Records::Entries(numbered(&rows, |row| {
                entry_rows::Kept::read(row).map(|kept| (kept.number, kept.entry))
            })?)
        }
        Kind::Node => {
            let rows = connection.fetch(selection.rows(node_rows::COLUMNS)).await?;
            Records::Nodes(numbered(&rows, |row| {
                node_rows::Kept::read(row).map(|kept| (kept.number, kept.node))
            })?)
        }
        Kind::CaJournal => {
            let rows = connection.fetch(selection.rows(ca_journals::COLUMNS)).await?;
            Records::CaJournals(rows.iter().map(ca_journals::journal).collect::<Result<_, _>>()?)
        }
        Kind::JoinToken => Records::JoinTokens(Vec::new()),
    })
}

fn numbered<T>(
    rows: &[Row],
    read: impl Fn(&Row) -> Result<(i64, T), StoreError>,
) -> Result<Vec<Numbered<T>>, StoreError> {
    let numbered = |row| read(row).map(|(number, record)| Numbered { number, record });
    rows.iter().map(numbered).collect()
}

async fn read_tokens(
    connection: &mut Connection,
    from: Position,
    limit: u32,
) -> Result<(Records, Option<Position>), StoreError> {
    let after = match from {
        Position::Token(hash) => hash.to_vec(),
        _ => Vec::new(),
    };
    let text = format!("SELECT {TOKENS} FROM join_tokens WHERE token > ? ORDER BY token LIMIT ?");
    let select = Statement::built(text, vec![after.into(), limit.into()]);
    let rows = connection.fetch(select).await?;
    let tokens = rows.iter().map(token).collect::<Result<Vec<_>, _>>()?;
    let is_full = tokens.len() == limit as usize;
    let next = tokens.last().filter(|_| is_full).map(|token| Position::Token(token.hash));
    Ok((Records::JoinTokens(tokens), next))
}

fn token(row: &Row) -> Result<JoinToken, StoreError> {
    let hash = |bytes: &[u8]| {
        let corrupt = |_| StoreError::Corrupt("a join token is no SHA-256".into());
        <[u8; 32]>::try_from(bytes).map_err(corrupt)
    };
    Ok(JoinToken {
        hash: hash(row.blob(0)?)?,
        expires_at: row.timestamp(1)?,
        redeemed_by: row.optional_blob(2)?.map(hash).transpose()?.map(KeyFingerprint),
    })
}

/// Writes records with their numbers and all links to them.
pub(super) async fn insert(
    connection: &mut Connection,
    records: &Records,
) -> Result<(), StoreError> {
    match records {
        Records::Bundles(bundles) => {
            let rows = bundles.iter().map(|kept| row(kept.number, bundles::values(&kept.record)));
            write(connection, "bundles", &bundles::WRITTEN, rows.collect()).await
        }
        Records::Relationships(relationships) => {
            let values = |kept: &Numbered<FederatesWith>| relationships::values(&kept.record);
            let rows = relationships.iter().map(|kept| row(kept.number, values(kept)));
            let table = table(Kind::Relationship);
            write(connection, table, &relationships::WRITTEN, rows.collect()).await
        }
        Records::Entries(entries) => {
            let rows = entries.iter().map(|kept| {
                let identity = entry_rows::identity(&kept.record);
                row(kept.number, entry_rows::values(&kept.record, identity))
            });
            write(connection, "entries", &entry_rows::WRITTEN, rows.collect()).await?;
            let owners: Vec<_> = entries.iter().map(|kept| (kept.number, &kept.record)).collect();
            let (selectors, federations) = entry_rows::links(&owners);
            link(connection, "entry_selectors", "selector", selectors).await?;
            link(connection, "entry_federations", "trust_domain", federations).await
        }
        Records::Nodes(nodes) => {
            let rows = nodes.iter().map(|kept| row(kept.number, node_rows::values(&kept.record)));
            write(connection, "nodes", &node_rows::WRITTEN, rows.collect()).await?;
            let links =
                nodes.iter().flat_map(|kept| node_rows::links(kept.number, &kept.record.selectors));
            link(connection, "node_selectors", "selector", links.collect()).await
        }
        Records::JoinTokens(tokens) => {
            // A NULL among the values would need a type: what is not spent is written by itself.
            let (mut spent, mut unspent) = (Vec::new(), Vec::new());
            for token in tokens {
                let mut values = vec![token.hash.into(), token.expires_at.as_second().into()];
                match token.redeemed_by {
                    None => unspent.push(values),
                    Some(key) => {
                        values.push(key.0.into());
                        spent.push(values);
                    }
                }
            }
            let columns = ["token", "expires_at", "redeemed_by"];
            run(connection, in_rows("join_tokens", &columns[..2], unspent)).await?;
            run(connection, in_rows("join_tokens", &columns, spent)).await
        }
        Records::CaJournals(journals) => {
            let rows = journals
                .iter()
                .map(|journal| row(journal_number(journal), ca_journals::values(journal)));
            write(connection, "ca_journals", &ca_journals::WRITTEN, rows.collect()).await
        }
    }
}

fn row(number: i64, mut values: Vec<Value>) -> Vec<Value> {
    values.insert(0, number.into());
    values
}

/// Writes rows that begin with their number.
async fn write(
    connection: &mut Connection,
    table: &str,
    columns: &[&str],
    rows: Vec<Vec<Value>>,
) -> Result<(), StoreError> {
    let columns: Vec<&str> = std::iter::once("number").chain(columns.iter().copied()).collect();
    run(connection, in_rows(table, &columns, rows)).await
}

async fn link(
    connection: &mut Connection,
    table: &str,
    member: &str,
    rows: Vec<Vec<Value>>,
) -> Result<(), StoreError> {
    run(connection, in_rows(table, &[member, "owner"], rows)).await
}

async fn run(connection: &mut Connection, statements: Vec<Statement>) -> Result<(), StoreError> {
    for statement in statements {
        connection.execute(statement).await?;
    }
    Ok(())
}

/// The number of a journal's row.
pub(super) fn journal_number(journal: &CaJournal) -> i64 {
    journal.id.map_or(0, |id| id.0)
}
