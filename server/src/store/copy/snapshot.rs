//! A source at one moment: a connection in a transaction that sees what was there when it began.

use super::{CopyError, Order};
use crate::store::OpenError;
use crate::store::Settings;
use crate::store::database::Connection;
use crate::store::dialect::{Hold, Place};
use crate::store::migrations::{Tables, whose};

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
    hold: Hold,
}

impl Snapshot {
    /// The source of `order`, and who else uses it, which only a rehearsal may go on with.
    pub(super) async fn take(order: &Order) -> Result<(Self, Option<String>), CopyError> {
        let settings = order.from.clone();
        let place = settings.place()?;
        let unavailable = |error| OpenError::unavailable(&place, error);
        let tables = place.tables().await.map_err(unavailable)?;
        if tables.is_empty() {
            return Err(CopyError::EmptySource(place.name()));
        }
        let refusal = match whose(&tables) {
            Tables::Foreign => Some("it holds tables of another program"),
            Tables::Usable if order.data_dir.is_some() => Some(
                "it holds tables of this server, which keep the journals too; leave out -dataDir",
            ),
            Tables::Usable | Tables::Spire => None,
        };
        if let Some(reason) = refusal {
            let (source_name, reason) = (place.name(), reason.to_owned());
            return Err(CopyError::Source { source_name, reason });
        }
        let moment = place.moment(&tables).await.map_err(unavailable)?;
        let others = moment.others.clone();
        let (connection, hold) = moment.into_parts();
        let snapshot = Self { connection, settings, place, tables, hold };
        match others {
            Some(by) if !order.rehearsal => {
                let name = snapshot.place.name();
                snapshot.close().await;
                Err(CopyError::InUse { name, by })
            }
            others => Ok((snapshot, others)),
        }
    }

    /// Lets writers in again.
    pub(in crate::store) async fn close(self) {
        self.hold.end(self.connection).await;
    }
}
