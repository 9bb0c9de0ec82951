//! The log of changes, by which every server learns what any server changed.
//!
//! Each change has a revision. Revisions are given in the order of commits, since whoever writes
//! holds the counter's row until its commit: who has seen one has seen all before it, and there are
//! no gaps to wait for.

use std::collections::HashSet;

use jiff::Timestamp;
use spire_core::entry::EntryId;
use spire_core::id::{SpiffeId, TrustDomain};

use super::database::Connection;
use super::dialect::tell;
use super::row::Row;
use super::sql::{Statement, in_pieces};
use super::{Store, StoreError};

/// A place in the log; 0 is before the first change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// What was created, updated or deleted; the record itself tells which.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Change {
    /// An entry.
    Entry(EntryId),
    /// A node, its selectors included.
    Node(SpiffeId),
    /// A bundle.
    Bundle(TrustDomain),
}

/// What happened since a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changes {
    /// The changes in order, and the revision of the last one. None means that there is nothing
    /// newer.
    Since {
        /// The changes.
        changes: Vec<Change>,
        /// Where to go on.
        last: Revision,
    },
    /// The log does not reach back so far, or is that of an older copy: read everything anew.
    Pruned,
}

/// How many changes are forgotten in one transaction.
const PRUNED_AT_ONCE: u32 = 5000;

impl Store {
    /// At most `limit` changes after `revision`.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn changes_since(
        &self,
        revision: Revision,
        limit: u32,
    ) -> Result<Changes, StoreError> {
        let changes = self
            .read((revision, limit), |connection, &(revision, limit)| {
                Box::pin(since(connection, revision, limit))
            })
            .await?;
        if let Changes::Since { last, .. } = changes {
            tell(&self.inner.changed, last);
        }
        Ok(changes)
    }

    /// The revision of the last change in the database.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn latest_revision(&self) -> Result<Revision, StoreError> {
        self.read((), |connection, ()| Box::pin(latest(connection))).await
    }

    /// Forgets changes made before `before`; returns how many.
    ///
    /// # Errors
    /// `Unavailable`, `Conflict`.
    pub async fn prune_changes(&self, before: Timestamp) -> Result<u64, StoreError> {
        let mut pruned = 0;
        loop {
            let count = self
                .write(before, |tx, before| {
                    Box::pin(async move {
                        let last = tx.reader().fetch_number(oldest_before(*before)).await?;
                        if last == 0 {
                            return Ok(0);
                        }
                        let delete = Statement::new("DELETE FROM changes WHERE revision <= ?");
                        let count = tx.execute(delete.bind(last)).await?;
                        let note = Statement::new("UPDATE change_head SET pruned = ?");
                        tx.execute(note.bind(last)).await?;
                        Ok(count)
                    })
                })
                .await?;
            pruned += count;
            if count < u64::from(PRUNED_AT_ONCE) {
                return Ok(pruned);
            }
        }
    }
}

/// The last of the oldest changes, if they were made before `before`; 0 if none was.
fn oldest_before(before: Timestamp) -> Statement {
    let text = "SELECT COALESCE(MAX(revision), 0) FROM \
                (SELECT revision, changed_at FROM changes ORDER BY revision LIMIT ?) oldest \
                WHERE changed_at < ?";
    Statement::new(text).bind(PRUNED_AT_ONCE).bind(before.as_second())
}

/// The revision of the last change.
pub(super) async fn latest(connection: &mut Connection) -> Result<Revision, StoreError> {
    let read = Statement::new("SELECT revision FROM change_head");
    revision(connection.fetch_number(read).await?)
}

/// What appends to the log what `writer` changed, each change once, after the revision `last`, and
/// the revision of the last one. The transaction holds the counter from its begin to its end.
pub(super) fn appending(
    writer: i64,
    last: i64,
    mut changes: Vec<Change>,
    now: Timestamp,
) -> (Vec<Statement>, i64) {
    let mut seen = HashSet::new();
    changes.retain(|change| seen.insert(change.clone()));
    let row = |(number, change): (i64, &Change)| {
        let (kind, name) = match change {
            Change::Entry(id) => (1_i64, id.as_str()),
            Change::Node(id) => (2, id.as_str()),
            Change::Bundle(trust_domain) => (3, trust_domain.as_str()),
        };
        vec![number.into(), kind.into(), name.into(), now.as_second().into(), writer.into()]
    };
    let rows = (last + 1..).zip(&changes).map(row).collect();
    let head = "INSERT INTO changes (revision, kind, name, changed_at, writer) VALUES ";
    let statements = in_pieces(head, "(?, ?, ?, ?, ?)", ", ", rows);
    let statements = statements.into_iter().map(|(statement, _)| statement).collect();
    (statements, last + changes.len() as i64)
}

/// The statement that reads what the log has after a revision: one row at least, and one alone while
/// nothing happens. What is pruned meanwhile shows: all is read at the same moment.
pub(super) fn read_after(revision: i64, limit: u32) -> Statement {
    let text = "SELECT change_head.revision, pruned, changes.revision, kind, name \
                FROM change_head LEFT JOIN changes ON changes.revision > ? \
                ORDER BY changes.revision LIMIT ?";
    Statement::new(text).bind(revision).bind(limit)
}

async fn since(
    connection: &mut Connection,
    after: Revision,
    limit: u32,
) -> Result<Changes, StoreError> {
    let rows = connection.fetch(read_after(after.0 as i64, limit)).await?;
    let head = rows.first();
    let head = head.ok_or_else(|| StoreError::Corrupt("the table change_head is empty".into()))?;
    let (last, pruned) = (revision(head.integer(0)?)?, revision(head.integer(1)?)?);
    if last == after {
        return Ok(Changes::Since { changes: Vec::new(), last });
    }
    if last < after || after < pruned || head.optional_integer(2)?.is_none() {
        return Ok(Changes::Pruned);
    }
    let last = rows.last().map_or(Ok(0), |row| row.integer(2))?;
    let changes = rows.iter().map(change).collect::<Result<_, _>>()?;
    Ok(Changes::Since { changes, last: revision(last)? })
}

fn revision(number: i64) -> Result<Revision, StoreError> {
    let number = u64::try_from(number);
    number.map(Revision).map_err(|_| StoreError::Corrupt("a revision is negative".into()))
}

fn change(row: &Row) -> Result<Change, StoreError> {
    let (kind, name) = (row.integer(3)?, row.text(4)?);
    let corrupt = || StoreError::Corrupt(format!("change {kind} {name:?} cannot be read"));
    match kind {
        1 => name.parse().map(Change::Entry).map_err(|_| corrupt()),
        2 => name.parse().map(Change::Node).map_err(|_| corrupt()),
        3 => name.parse().map(Change::Bundle).map_err(|_| corrupt()),
        _ => Err(corrupt()),
    }
}
