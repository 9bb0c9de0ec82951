//! A source at one moment: a connection in a transaction that sees what was there when it began.

use crate::store::Settings;
use crate::store::database::Connection;
use crate::store::dialect::Place;

/// What a source reads from. What is read on [`Snapshot::connection`] is of one moment.
pub(in crate::store) struct Snapshot {
    /// Reads, within the transaction. It is ended by [`Snapshot::close`], not by a statement.
    pub(in crate::store) connection: Connection,
    /// The settings that lead there; the connection string may say how times are meant.
    pub(in crate::store) settings: Settings,
    /// Where it is.
    pub(in crate::store) place: Place,
    /// The names of all tables.
    pub(in crate::store) tables: Vec<String>,
}

impl Snapshot {
    /// Lets writers in again.
    pub(in crate::store) async fn close(self) {
        self.connection.close().await;
    }
}
