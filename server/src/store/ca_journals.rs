//! CA journals: one row for each server, opaque here.

use bytes::Bytes;
use jiff::Timestamp;

use super::row::Row;
use super::sql::{Statement, Value, look_up};
use super::{Store, StoreError};

/// Names the row of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CaJournalId(pub(super) i64);

/// A server's journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaJournal {
    /// Its row; `None` before it was first stored.
    pub id: Option<CaJournalId>,
    /// The authority id (hexadecimal Subject Key Identifier) of the active X.509 CA; a server
    /// finds its journal by the keys that it holds.
    pub active_x509_authority_id: String,
    /// The journal, as `authority` lays it out.
    pub data: Bytes,
    /// When the last authority in it ends; kept in whole seconds.
    pub expires_at: Timestamp,
}

/// What is selected from `ca_journals r`, in the order in which [`journal`] reads it.
pub(super) const COLUMNS: &str = "r.number, r.active_x509_authority_id, r.data, r.expires_at";

/// The columns of [`values`], in order.
pub(super) const WRITTEN: [&str; 3] = ["active_x509_authority_id", "data", "expires_at"];

impl Store {
    /// The newest journal whose active X.509 authority is one of these.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn find_ca_journal(
        &self,
        x509_authority_ids: &[String],
    ) -> Result<Option<CaJournal>, StoreError> {
        let ids = x509_authority_ids.iter().map(|id| id.as_str().into()).collect();
        let head =
            format!("SELECT {COLUMNS} FROM ca_journals r WHERE r.active_x509_authority_id IN");
        let mut found = Vec::new();
        for statement in look_up(&head, ids, "ORDER BY r.number DESC LIMIT 1") {
            found.extend(self.fetch_ca_journals(statement).await?);
        }
        Ok(found.into_iter().max_by_key(|journal| journal.id))
    }

    /// All journals, oldest row first.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn ca_journals(&self) -> Result<Vec<CaJournal>, StoreError> {
        let text = format!("SELECT {COLUMNS} FROM ca_journals r ORDER BY r.number");
        self.fetch_ca_journals(Statement::built(text, Vec::new())).await
    }

    async fn fetch_ca_journals(&self, select: Statement) -> Result<Vec<CaJournal>, StoreError> {
        self.read(select, |connection, select| {
            Box::pin(async move {
                connection.fetch(select.clone()).await?.iter().map(journal).collect()
            })
        })
        .await
    }

    /// Stores a journal in its row, or in a new one where it has none or the row is gone.
    ///
    /// # Errors
    /// `Unavailable`, `Conflict`, `Corrupt`.
    pub async fn set_ca_journal(&self, journal: CaJournal) -> Result<CaJournalId, StoreError> {
        self.write(journal, |tx, journal| {
            Box::pin(async move {
                let values = values(journal);
                if let Some(id) = journal.id {
                    let text = "UPDATE ca_journals SET active_x509_authority_id = ?, data = ?, \
                                expires_at = ? WHERE number = ?";
                    let update = Statement::built(text.to_owned(), values.clone()).bind(id.0);
                    if tx.execute(update).await? == 1 {
                        return Ok(id);
                    }
                }
                let numbers = tx.insert_numbered("ca_journals", &WRITTEN, vec![values]).await?;
                Ok(CaJournalId(numbers[0]))
            })
        })
        .await
    }

    /// Deletes journals whose last authority ended before `expired_before`; returns how many.
    ///
    /// # Errors
    /// `Unavailable`, `Conflict`, `Corrupt`.
    pub async fn prune_ca_journals(&self, expired_before: Timestamp) -> Result<u64, StoreError> {
        self.write(expired_before, |tx, before| {
            Box::pin(async move {
                let delete = Statement::new("DELETE FROM ca_journals WHERE expires_at < ?");
                tx.execute(delete.bind(before.as_second())).await
            })
        })
        .await
    }
}

/// Reads a row of [`COLUMNS`].
pub(super) fn journal(row: &Row) -> Result<CaJournal, StoreError> {
    Ok(CaJournal {
        id: Some(CaJournalId(row.integer(0)?)),
        active_x509_authority_id: row.text(1)?.to_owned(),
        data: Bytes::copy_from_slice(row.blob(2)?),
        expires_at: row.timestamp(3)?,
    })
}

/// What goes into a row.
pub(super) fn values(journal: &CaJournal) -> Vec<Value> {
    vec![
        journal.active_x509_authority_id.as_str().into(),
        journal.data.to_vec().into(),
        journal.expires_at.as_second().into(),
    ]
}
