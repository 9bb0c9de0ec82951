//! Columns as SQL reads them on each kind of database, and as they come out of a row.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::time::{self, Zone};
use crate::store::row::Row;
use crate::store::{DatabaseKind, StoreError};

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Number,
    Truth,
    Text,
    Bytes,
    Time,
}
use Type::{Bytes, Number, Text, Time, Truth};

/// A column's name and what it holds.
pub(super) type Column = (&'static str, Type);

/// The list of `columns` of a table for SELECT, in this order; `prefix` is the table's name with a
/// point, or nothing. Those that do not exist are read as nothing.
pub(super) fn select(
    columns: &[Column],
    existing: &BTreeSet<String>,
    prefix: &str,
    database: DatabaseKind,
) -> String {
    let expression = |(name, r#type): &Column| {
        let column = existing.contains(*name).then(|| format!("{prefix}{name}"));
        r#type.expression(column, database)
    };
    columns.iter().map(expression).collect::<Vec<_>>().join(", ")
}

impl Type {
    /// NULL is made nothing here, except for bytes and points in time, where it differs. A time
    /// comes as microseconds since 1970 from PostgreSQL, and as text from the others.
    fn expression(self, column: Option<String>, database: DatabaseKind) -> String {
        use DatabaseKind::{MySql, Postgres, Sqlite};
        let integer = |value: String| match database {
            Sqlite => format!("CAST({value} AS INTEGER)"),
            Postgres => format!("CAST({value} AS bigint)"),
            MySql => format!("CAST({value} AS SIGNED)"),
        };
        match (self, column) {
            (Number | Truth, None) => integer("0".to_owned()),
            (Text, None) => "''".to_owned(),
            (Bytes | Time, None) => "NULL".to_owned(),
            (Number, Some(column)) => integer(format!("COALESCE({column}, 0)")),
            (Truth, Some(column)) => integer(format!("CASE WHEN {column} THEN 1 ELSE 0 END")),
            (Text, Some(column)) => format!("COALESCE({column}, '')"),
            (Bytes, Some(column)) if database == Sqlite => format!("CAST({column} AS BLOB)"),
            (Bytes, Some(column)) => column,
            (Time, Some(column)) => match database {
                Sqlite => format!("CAST({column} AS TEXT)"),
                Postgres => format!("CAST(EXTRACT(EPOCH FROM {column}) * 1000000 AS bigint)"),
                MySql => format!("DATE_FORMAT({column}, '%Y-%m-%d %H:%i:%s.%f')"),
            },
        }
    }
}

/// A row of a list of columns.
pub(super) struct Fields<'r> {
    pub(super) row: &'r Row,
    pub(super) columns: &'static [Column],
    /// What texts of times mean that do not say it.
    pub(super) zone: &'r Zone,
}

impl Fields<'_> {
    fn index(&self, name: &str) -> usize {
        let position = self.columns.iter().position(|column| column.0 == name);
        position.expect("only columns that were selected are asked for")
    }

    pub(super) fn number(&self, name: &str) -> Result<i64, StoreError> {
        self.row.integer(self.index(name))
    }

    pub(super) fn truth(&self, name: &str) -> Result<bool, StoreError> {
        self.row.truth(self.index(name))
    }

    pub(super) fn text(&self, name: &str) -> Result<&str, StoreError> {
        self.row.text(self.index(name))
    }

    /// Nothing where it is NULL, which means the same.
    pub(super) fn bytes(&self, name: &str) -> Result<&[u8], StoreError> {
        Ok(self.row.optional_blob(self.index(name))?.unwrap_or_default())
    }

    /// `None` where it is NULL.
    pub(super) fn time(&self, name: &str) -> Result<Option<Timestamp>, StoreError> {
        let index = self.index(name);
        if matches!(self.row, Row::Postgres(_)) {
            let microseconds = self.row.optional_integer(index)?;
            return Ok(microseconds.map(|it| Timestamp::from_microsecond(it).unwrap_or(time::ZERO)));
        }
        Ok(self.row.optional_text(index)?.map(|text| time::read(text, self.zone)))
    }
}
