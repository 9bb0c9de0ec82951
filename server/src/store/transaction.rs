//! The transaction that writes are part of: numbers for rows, the log of changes, the commit.

use std::time::Duration;

use jiff::Timestamp;

use super::StoreError;
use super::changes::{self, Change, Revision, appending};
use super::database::{Connection, SHORT_STATEMENT};
use super::sql::{self, Statement, Value};

/// How long a database may take to begin a transaction, its turn included, for which it lets a write
/// wait 8 s, and to end one. Callers wait so long on a connection that leads nowhere any more.
const TURN: Duration = Duration::from_secs(10);

/// The transaction that a write is part of.
pub(super) struct Transaction {
    pub(super) connection: Connection,
    changes: Vec<Change>,
    /// By this random number it is known again, in `change_head` and in the log of changes.
    mark: i64,
    /// The mark of the one before it.
    before: i64,
    /// The last revision and the last number of a row that were given, and the mark of the last
    /// transaction, as `change_head` has them.
    revision: i64,
    number: i64,
    last_writer: i64,
    /// Whether it has changed anything.
    changed: bool,
    /// Whether the write that runs has changed anything yet.
    pub(super) written: bool,
}

impl Transaction {
    pub(super) fn new(connection: Connection) -> Self {
        Self {
            connection,
            changes: Vec::new(),
            mark: 0,
            before: 0,
            revision: 0,
            number: 0,
            last_writer: 0,
            changed: false,
            written: false,
        }
    }

    /// The revision with which the log ended when the transaction began.
    pub(super) fn begun_at(&self) -> Revision {
        Revision(self.revision.unsigned_abs())
    }

    /// The connection, for what only reads.
    pub(super) fn reader(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Notes what the transaction has changed, for the log.
    pub(super) fn note(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// Runs a statement; returns how many rows it changed.
    pub(super) async fn execute(&mut self, statement: Statement) -> Result<u64, StoreError> {
        self.written = true;
        let rows = self.connection.execute(statement).await?;
        self.changed |= rows > 0;
        Ok(rows)
    }

    /// Inserts rows.
    pub(super) async fn insert(
        &mut self,
        table: &str,
        columns: &[&str],
        rows: Vec<Vec<Value>>,
    ) -> Result<(), StoreError> {
        self.execute_all(sql::insert(table, columns, rows)).await
    }

    /// Deletes `rows`, each a member and an owner, from a table of links.
    pub(super) async fn unlink(
        &mut self,
        table: &str,
        member: &str,
        rows: &[Vec<Value>],
    ) -> Result<(), StoreError> {
        self.execute_all(sql::unlink(table, member, rows)).await
    }

    /// Runs statements in order.
    pub(super) async fn execute_all(
        &mut self,
        statements: Vec<Statement>,
    ) -> Result<(), StoreError> {
        for statement in statements {
            self.execute(statement).await?;
        }
        Ok(())
    }

    /// Inserts rows with numbers of their own; returns the numbers, in order. Numbers of all tables
    /// are given in one row and none is given twice.
    pub(super) async fn insert_numbered(
        &mut self,
        table: &str,
        columns: &[&str],
        rows: Vec<Vec<Value>>,
    ) -> Result<Vec<i64>, StoreError> {
        let first = self.number + 1;
        self.number += rows.len() as i64;
        let numbered = (first..).zip(rows).map(|(number, mut row)| {
            row.insert(0, number.into());
            row
        });
        let columns = [&["number"][..], columns].concat();
        self.insert(table, &columns, numbered.collect()).await?;
        Ok((first..=self.number).collect())
    }

    pub(super) async fn begin(&mut self) -> Result<(), StoreError> {
        self.changes.clear();
        self.changed = false;
        let begin = self.connection.dialect().begin;
        self.connection.allow(TURN);
        let begun = self.connection.run_script(begin.into()).await;
        self.connection.allow(SHORT_STATEMENT);
        let rows = begun?;
        let head = rows.last().ok_or_else(|| StoreError::Corrupt("change_head is empty".into()))?;
        (self.revision, self.number) = (head.integer(0)?, head.integer(1)?);
        self.last_writer = head.integer(2)?;
        Ok(())
    }

    /// What is left to write: the log of changes, where there are any, the last numbers that were
    /// given, and the mark. Returns the last revision then.
    pub(super) fn last_words(&mut self) -> (Option<Revision>, Vec<Statement>) {
        let changes = std::mem::take(&mut self.changes);
        let has_changed = !changes.is_empty();
        // Not before: until here they are those of the last transaction that ended.
        (self.mark, self.before) = (random(), self.last_writer);
        let (mut statements, last) = appending(self.mark, self.revision, changes, Timestamp::now());
        self.revision = last;
        if has_changed || self.changed {
            let head =
                Statement::new("UPDATE change_head SET revision = ?, number = ?, last_writer = ?");
            statements.push(head.bind(self.revision).bind(self.number).bind(self.mark));
        }
        (has_changed.then_some(Revision(self.revision.unsigned_abs())), statements)
    }

    /// Writes `last_words` and commits.
    pub(super) async fn commit(
        &mut self,
        changed: Option<Revision>,
        last_words: Vec<Statement>,
    ) -> Result<(), StoreError> {
        let commit = self.connection.dialect().commit(changed);
        self.connection.allow(TURN);
        let committed = self.connection.finish(last_words, commit).await;
        self.connection.allow(SHORT_STATEMENT);
        committed
    }

    /// Whether the transaction that spoke its last words before this one began was committed.
    /// `None` where others have written since and it gave no revision, by which the log could tell.
    pub(super) async fn was_committed(
        &mut self,
        changed: Option<Revision>,
    ) -> Result<Option<bool>, StoreError> {
        match changed {
            _ if self.last_writer == self.mark => Ok(Some(true)),
            _ if self.last_writer == self.before => Ok(Some(false)),
            Some(revision) => {
                changes::has(&mut self.connection, revision, self.mark).await.map(Some)
            }
            None => Ok(None),
        }
    }

    pub(super) async fn roll_back(&mut self) -> Result<(), StoreError> {
        self.connection.allow(TURN);
        let rolled_back = self.connection.run_script("ROLLBACK".into()).await;
        self.connection.allow(SHORT_STATEMENT);
        rolled_back.map(drop)
    }
}

fn random() -> i64 {
    let mut random = [0; 8];
    aws_lc_rs::rand::fill(&mut random).expect("the system has random numbers");
    i64::from_le_bytes(random)
}
