//! Which of SPIRE's tables and columns there are, and whether they can be copied.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use super::super::CopyError;
use super::super::snapshot::Snapshot;
use crate::store::sql::Statement;
use crate::store::{DatabaseKind, StoreError};

/// The schemas that can be copied: since 4 a bundle is one message.
const SCHEMAS: RangeInclusive<i64> = 4..=25;

/// The columns that mean something in some schema, or are known to mean nothing.
const KNOWN: &[(&str, &[&str])] = &[
    (
        "attested_node_entries",
        &[
            "spiffe_id",
            "data_type",
            "serial_number",
            "expires_at",
            "new_serial_number",
            "new_expires_at",
            "can_reattest",
            "agent_version",
        ],
    ),
    ("attested_node_entries_events", &["spiffe_id"]),
    ("bundles", &["trust_domain", "data"]),
    ("ca_journals", &["data", "active_x509_authority_id", "active_jwt_authority_id"]),
    ("dns_names", &["registered_entry_id", "value"]),
    ("federated_registration_entries", &["bundle_id", "registered_entry_id"]),
    (
        "federated_trust_domains",
        &[
            "trust_domain",
            "bundle_endpoint_url",
            "bundle_endpoint_profile",
            "endpoint_spiffe_id",
            "implicit",
        ],
    ),
    ("join_tokens", &["token", "expiry"]),
    ("migrations", &["version", "code_version"]),
    ("node_resolver_map_entries", &["spiffe_id", "type", "value"]),
    (
        "registered_entries",
        &[
            "entry_id",
            "spiffe_id",
            "parent_id",
            "ttl",
            "admin",
            "downstream",
            "expiry",
            "revision_number",
            "store_svid",
            "hint",
            "x509_svid_ttl",
            "jwt_svid_ttl",
            "additional_attributes",
        ],
    ),
    ("registered_entries_events", &["entry_id"]),
    ("selectors", &["registered_entry_id", "type", "value"]),
];

/// What every table begins with, and what very old ones have besides.
const COMMON: [&str; 4] = ["id", "created_at", "updated_at", "deleted_at"];

/// The tables that every schema has, with columns that they always had.
const REQUIRED: &[(&str, &[&str])] = &[
    ("attested_node_entries", &["id", "spiffe_id", "data_type", "serial_number", "expires_at"]),
    ("bundles", &["id", "trust_domain", "data"]),
    ("join_tokens", &["id", "token", "expiry"]),
    ("node_resolver_map_entries", &["id", "spiffe_id", "type", "value"]),
    ("registered_entries", &["id", "entry_id", "spiffe_id", "parent_id", "ttl", "created_at"]),
    ("selectors", &["id", "registered_entry_id", "type", "value"]),
];

/// The tables with their columns.
#[derive(Debug)]
pub(super) struct Catalog {
    tables: BTreeMap<String, BTreeSet<String>>,
    /// What the tables say about themselves. The columns alone count: MySQL keeps those of a
    /// migration that broke off.
    pub(super) version: i64,
    /// The highest release that opened the database; empty where that is not noted.
    pub(super) code_version: String,
}

impl Catalog {
    /// Asks the database.
    ///
    /// # Errors
    /// [`CopyError::Source`] where its tables are not all of a schema that is known.
    pub(super) async fn read(snapshot: &mut Snapshot) -> Result<Self, CopyError> {
        let mut catalog = Self {
            tables: columns(snapshot).await.map_err(|error| failed(snapshot, &error))?,
            version: 0,
            code_version: String::new(),
        };
        catalog.read_version(snapshot).await?;
        let checked = catalog.check(&snapshot.tables);
        checked.map_err(|reason| refused(snapshot, reason))?;
        Ok(catalog)
    }

    /// The columns of a table; `None` where there is no such table.
    pub(super) fn columns(&self, table: &str) -> Option<&BTreeSet<String>> {
        self.tables.get(table)
    }

    /// Tables that no schema up to 25 has.
    pub(super) fn unknown_tables(&self) -> impl Iterator<Item = &str> {
        let is_known = |name: &str| KNOWN.iter().any(|known| known.0 == name);
        self.tables.keys().map(String::as_str).filter(move |name| !is_known(name))
    }

    async fn read_version(&mut self, snapshot: &mut Snapshot) -> Result<(), CopyError> {
        let missing = "it has no row in a table migrations with the version of SPIRE's schema; does \
                       its connection string lead to the database of a SPIRE server, and may the \
                       user read it?";
        let missing = |snapshot: &Snapshot| refused(snapshot, missing.to_owned());
        let Some(columns) = self.columns("migrations").filter(|has| has.contains("version")) else {
            return Err(missing(snapshot));
        };
        let code_version =
            if columns.contains("code_version") { "COALESCE(code_version, '')" } else { "''" };
        let integer = match snapshot.settings.kind {
            DatabaseKind::Postgres => "bigint",
            DatabaseKind::MySql => "SIGNED",
            DatabaseKind::Sqlite => "INTEGER",
        };
        let text = format!(
            "SELECT CAST(version AS {integer}), {code_version} FROM migrations ORDER BY id LIMIT 1"
        );
        let row = snapshot.connection.fetch_first(Statement::built(text, Vec::new())).await;
        let read = row.and_then(|row| {
            row.map(|row| Ok((row.integer(0)?, row.text(1)?.to_owned()))).transpose()
        });
        match read {
            Ok(Some((version, code_version))) => {
                (self.version, self.code_version) = (version, code_version);
                Ok(())
            }
            Ok(None) => Err(missing(snapshot)),
            Err(error) => Err(failed(snapshot, &error)),
        }
    }

    /// Whether all that must be there is there, and nothing that may mean something unheard of.
    fn check(&self, tables: &[String]) -> Result<(), String> {
        let (version, oldest, newest) = (self.version, SCHEMAS.start(), SCHEMAS.end());
        if version < *oldest {
            return Err(format!(
                "it has SPIRE's schema version {version}, and {oldest} to {newest} can be copied; \
                 start later releases of SPIRE on it, one after the other, up to 0.12 at least, \
                 each until it has migrated the tables"
            ));
        }
        if version > *newest
            && let Some(unknown) = self.unknown_column()
        {
            return Err(format!(
                "it has SPIRE's schema version {version}, {oldest} to {newest} can be copied, and \
                 what its column {unknown} means is not known here; copy it with a later version \
                 of this program"
            ));
        }
        for (table, columns) in REQUIRED {
            let Some(existing) = self.columns(table) else {
                // PostgreSQL shows the names of tables to everybody.
                let remedy = if tables.iter().any(|name| name == table) {
                    "give the user the right to read (SELECT) all tables"
                } else {
                    "start SPIRE's server on it once, which makes them, or check the connection \
                     string and that the user may read all tables"
                };
                return Err(format!(
                    "it has SPIRE's schema version {version} but no table {table} that can be \
                     read; {remedy}"
                ));
            };
            if let Some(column) = columns.iter().find(|column| !existing.contains(**column)) {
                return Err(format!(
                    "its table {table} has no column {column}, which SPIRE's schema version \
                     {version} must have; is it whole?"
                ));
            }
        }
        Ok(())
    }

    fn unknown_column(&self) -> Option<String> {
        KNOWN.iter().find_map(|(table, known)| {
            let is_known = |column: &str| known.contains(&column) || COMMON.contains(&column);
            let unknown = self.columns(table)?.iter().find(|column| !is_known(column))?;
            Some(format!("{table}.{unknown}"))
        })
    }
}

/// All columns of all tables.
async fn columns(
    snapshot: &mut Snapshot,
) -> Result<BTreeMap<String, BTreeSet<String>>, StoreError> {
    let ask = match snapshot.settings.kind {
        DatabaseKind::Sqlite => {
            "SELECT t.name, c.name FROM sqlite_master t, pragma_table_info(t.name) c \
             WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite@_%' ESCAPE '@'"
        }
        DatabaseKind::Postgres => {
            "SELECT table_name::text, column_name::text FROM information_schema.columns \
             WHERE table_schema = current_schema()"
        }
        DatabaseKind::MySql => {
            "SELECT table_name, column_name FROM information_schema.columns \
             WHERE table_schema = DATABASE()"
        }
    };
    let mut tables = BTreeMap::<String, BTreeSet<String>>::new();
    for row in snapshot.connection.fetch(Statement::new(ask)).await? {
        let columns = tables.entry(row.text(0)?.to_owned()).or_default();
        columns.insert(row.text(1)?.to_owned());
    }
    Ok(tables)
}

/// The refusal to copy this database.
pub(super) fn refused(snapshot: &Snapshot, reason: String) -> CopyError {
    CopyError::Source { source_name: snapshot.place.name(), reason }
}

fn failed(snapshot: &Snapshot, error: &StoreError) -> CopyError {
    refused(snapshot, format!("its tables cannot be read: {error}"))
}
