//! Rows as they are read.

use jiff::Timestamp;
use sqlx::mysql::MySqlRow;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, ValueRef as _};

use super::StoreError;

/// A row that was read; columns are counted from 0.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
    MySql(MySqlRow),
}

impl From<SqliteRow> for Row {
    fn from(row: SqliteRow) -> Self {
        Self::Sqlite(row)
    }
}
impl From<PgRow> for Row {
    fn from(row: PgRow) -> Self {
        Self::Postgres(row)
    }
}
impl From<MySqlRow> for Row {
    fn from(row: MySqlRow) -> Self {
        Self::MySql(row)
    }
}

pub(super) fn rows<R: Into<Row>>(rows: Vec<R>) -> Vec<Row> {
    rows.into_iter().map(Into::into).collect()
}

impl Row {
    pub(super) fn integer(&self, index: usize) -> Result<i64, StoreError> {
        self.optional_integer(index)?.ok_or_else(|| corrupt(index, "is NULL"))
    }

    pub(super) fn optional_integer(&self, index: usize) -> Result<Option<i64>, StoreError> {
        let value = match self {
            Self::Sqlite(row) => row.try_get(index),
            Self::Postgres(row) => row.try_get(index),
            Self::MySql(row) => row.try_get(index),
        };
        value.map_err(|error| corrupt(index, &error.to_string()))
    }

    /// A point in time, kept as Unix seconds.
    pub(super) fn timestamp(&self, index: usize) -> Result<Timestamp, StoreError> {
        let seconds = self.integer(index)?;
        Timestamp::from_second(seconds)
            .map_err(|_| StoreError::Corrupt(format!("{seconds} is no point in time")))
    }

    pub(super) fn truth(&self, index: usize) -> Result<bool, StoreError> {
        Ok(self.integer(index)? != 0)
    }

    pub(super) fn text(&self, index: usize) -> Result<&str, StoreError> {
        let value = match self {
            Self::Sqlite(row) => row.try_get(index),
            Self::Postgres(row) => row.try_get(index),
            // Texts are bytes there; see its dialect.
            Self::MySql(_) => {
                let text = std::str::from_utf8(self.blob(index)?);
                return text.map_err(|error| corrupt(index, &error.to_string()));
            }
        };
        value.map_err(|error| corrupt(index, &error.to_string()))
    }

    /// The text in the column of that name, where it is not NULL.
    pub(super) fn text_named(&self, name: &str) -> Result<Option<&str>, StoreError> {
        let corrupt = |error: &dyn std::fmt::Display| {
            StoreError::Corrupt(format!("column {name} of a row: {error}"))
        };
        let value = match self {
            Self::Sqlite(row) => row.try_get(name),
            Self::Postgres(row) => row.try_get(name),
            Self::MySql(row) => {
                let bytes: Option<&[u8]> = row.try_get(name).map_err(|error| corrupt(&error))?;
                return bytes.map(std::str::from_utf8).transpose().map_err(|error| corrupt(&error));
            }
        };
        value.map_err(|error| corrupt(&error))
    }

    pub(super) fn blob(&self, index: usize) -> Result<&[u8], StoreError> {
        self.optional_blob(index)?.ok_or_else(|| corrupt(index, "is NULL"))
    }

    pub(super) fn optional_blob(&self, index: usize) -> Result<Option<&[u8]>, StoreError> {
        let value = match self {
            Self::Sqlite(row) => row.try_get(index),
            Self::Postgres(row) => row.try_get(index),
            Self::MySql(row) => row.try_get(index),
        };
        value.map_err(|error| corrupt(index, &error.to_string()))
    }

    pub(super) fn optional_text(&self, index: usize) -> Result<Option<&str>, StoreError> {
        let is_null = match self {
            Self::Sqlite(row) => row.try_get_raw(index).map(|value| value.is_null()),
            Self::Postgres(row) => row.try_get_raw(index).map(|value| value.is_null()),
            Self::MySql(row) => row.try_get_raw(index).map(|value| value.is_null()),
        };
        match is_null.map_err(|error| corrupt(index, &error.to_string()))? {
            true => Ok(None),
            false => self.text(index).map(Some),
        }
    }
}

fn corrupt(index: usize, reason: &str) -> StoreError {
    StoreError::Corrupt(format!("column {index} of a row: {reason}"))
}
