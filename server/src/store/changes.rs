//! The log of changes, by which every server learns what any server changed.
//!
//! Each change has a revision. Revisions are given in the order of commits, since whoever writes
//! holds the counter's row until its commit: who has seen one has seen all before it, and there are
//! no gaps to wait for.
//!
//! A database that takes the place of another after a failover, or that was restored, may have lost
//! the last changes, and gives their revisions again to others. Whoever follows the log therefore
//! keeps a [`Bookmark`], which tells by which transaction a revision was given.

use std::collections::HashSet;

use jiff::Timestamp;
use spire_core::entry::EntryId;
use spire_core::id::{SpiffeId, TrustDomain};
use tokio::sync::watch;

use super::database::{Connection, SHORT_STATEMENT};
use super::row::Row;
use super::sql::{Statement, insert};
use super::{Store, StoreError};

/// A place in the log; 0 is before the first change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// How far somebody has read the log; the default is before the first change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bookmark {
    /// The last revision that was read.
    pub revision: Revision,
    /// The number of the transaction that gave it; `None` where the log has no such row.
    pub(super) transaction: Option<i64>,
}

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
    /// The changes in order, and the place of the last one. None means that there is nothing newer.
    Since {
        /// The changes.
        changes: Vec<Change>,
        /// Where to go on.
        last: Bookmark,
    },
    /// The log does not reach back so far, or is not the one of the bookmark: read everything anew.
    Pruned,
}

/// How many changes are forgotten in one transaction.
const PRUNED_AT_ONCE: u32 = 5000;

impl Store {
    /// At most `limit` changes after `bookmark`.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn changes_since(
        &self,
        bookmark: Bookmark,
        limit: u32,
    ) -> Result<Changes, StoreError> {
        let changes = self
            .read((bookmark, limit), |connection, &(bookmark, limit)| {
                Box::pin(since(connection, bookmark, limit))
            })
            .await?;
        if let Changes::Since { last, .. } = changes {
            tell(&self.inner.changed, last.revision);
        }
        Ok(changes)
    }

    /// The end of the log: what is read from here on are the changes that come. Where it is newer than
    /// what was known here, those who follow the log are poked.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn bookmark(&self) -> Result<Bookmark, StoreError> {
        let end = self.read((), |connection, ()| Box::pin(end(connection))).await?;
        tell(&self.inner.changed, end.revision);
        Ok(end)
    }

    /// The revision of the last change in the database.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn latest_revision(&self) -> Result<Revision, StoreError> {
        self.bookmark().await.map(|bookmark| bookmark.revision)
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

/// Where the log ends.
pub(super) async fn end(connection: &mut Connection) -> Result<Bookmark, StoreError> {
    let text = "SELECT change_head.revision, writer FROM change_head \
                LEFT JOIN changes ON changes.revision = change_head.revision";
    let row = connection.fetch_first(Statement::new(text)).await?.ok_or_else(no_head)?;
    Ok(Bookmark { revision: revision(row.integer(0)?)?, transaction: row.optional_integer(1)? })
}

/// Whether the log has `revision`, given by `transaction`.
pub(super) async fn has(
    connection: &mut Connection,
    revision: Revision,
    transaction: i64,
) -> Result<bool, StoreError> {
    let text = "SELECT COUNT(*) FROM changes WHERE revision = ? AND writer = ?";
    let count = Statement::new(text).bind(revision.0.cast_signed()).bind(transaction);
    Ok(connection.fetch_number(count).await? > 0)
}

fn no_head() -> StoreError {
    StoreError::Corrupt("the table change_head is empty".into())
}

/// Pokes those who follow the log, unless they know of `revision`.
pub(super) fn tell(changed: &watch::Sender<Revision>, revision: Revision) {
    changed.send_if_modified(|known| {
        let newer = *known < revision;
        *known = revision.max(*known);
        newer
    });
}

/// Pokes those who follow the log, where it ends at `revision` and they know of later ones: a writer
/// that begins sees all that was ever committed, unless the database has lost some of it.
pub(super) fn tell_loss(changed: &watch::Sender<Revision>, revision: Revision) {
    changed.send_if_modified(|known| {
        if *known <= revision {
            return false;
        }
        tracing::warn!(
            subsystem_name = "datastore",
            known_revision = known.0,
            last_revision = revision.0,
            "Datastore has lost changes, as after a failover; all entries and agents are read anew"
        );
        *known = revision;
        true
    });
}

/// What appends to the log what `transaction` changed, each change once, after the revision `last`,
/// and the revision of the last one. The transaction holds the counter from its begin to its end.
pub(super) fn appending(
    transaction: i64,
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
        vec![number.into(), kind.into(), name.into(), now.as_second().into(), transaction.into()]
    };
    let rows = (last + 1..).zip(&changes).map(row).collect();
    let columns = ["revision", "kind", "name", "changed_at", "writer"];
    (insert("changes", &columns, rows), last + changes.len() as i64)
}

/// The statement that reads the row of a revision and what the log has after it, `limit` changes at
/// most: one row at least, and one alone while nothing happens. What is pruned meanwhile shows: all
/// is read at the same moment.
pub(super) fn read_from(revision: i64, limit: u32) -> Statement {
    let text = "SELECT change_head.revision, pruned, changes.revision, kind, name, writer \
                FROM change_head LEFT JOIN changes ON changes.revision >= ? \
                ORDER BY changes.revision LIMIT ?";
    Statement::new(text).bind(revision).bind(limit.saturating_add(1))
}

async fn since(
    connection: &mut Connection,
    after: Bookmark,
    limit: u32,
) -> Result<Changes, StoreError> {
    connection.allow(SHORT_STATEMENT);
    let place = after.revision.0.cast_signed();
    let rows = connection.fetch(read_from(place, limit)).await?;
    let head = rows.first().ok_or_else(no_head)?;
    let (last, pruned) = (revision(head.integer(0)?)?, revision(head.integer(1)?)?);
    let first = head.optional_integer(2)?;
    let is_kept = first == Some(place);
    let transaction = if is_kept { head.optional_integer(5)? } else { None };
    // A row that was pruned cannot tell, and does not come back.
    let is_same = transaction == after.transaction || (!is_kept && after.revision == pruned);
    if last < after.revision || after.revision < pruned || !is_same {
        return Ok(Changes::Pruned);
    }
    let newer = &rows[usize::from(is_kept || first.is_none())..];
    let newer = &newer[..newer.len().min(limit as usize)];
    let Some(newest) = newer.last() else {
        let nothing = Changes::Since { changes: Vec::new(), last: after };
        return Ok(if last == after.revision { nothing } else { Changes::Pruned });
    };
    let changes = newer.iter().map(change).collect::<Result<_, _>>()?;
    let last = Bookmark {
        revision: revision(newest.integer(2)?)?,
        transaction: newest.optional_integer(5)?,
    };
    Ok(Changes::Since { changes, last })
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
