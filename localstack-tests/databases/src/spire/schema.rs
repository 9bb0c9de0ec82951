//! SPIRE's tables as its servers make them, from schema 15 on: at their first start, and step by
//! step in databases that began earlier.

use std::ops::RangeInclusive;

use super::Kind;

/// The schemas that can be made.
pub(super) const SCHEMAS: RangeInclusive<u32> = 15..=25;

/// A release that writes a schema.
pub(super) fn release(schema: u32) -> &'static str {
    match schema {
        ..=15 => "0.12.3",
        16 | 17 => "1.1.5",
        18 => "1.3.1",
        19 => "1.5.6",
        20 | 21 => "1.7.1",
        22 => "1.7.6",
        23 => "1.14.2",
        24 => "1.14.7",
        _ => "1.15.3",
    }
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Key,
    Reference,
    Number,
    Large,
    Truth,
    Text,
    Name,
    Bytes,
    Time,
}
use Type::{Bytes, Key, Large, Name, Number, Reference, Text, Time, Truth};

impl Type {
    /// As the catalogue has it. A `Name` is a text that must be there.
    fn sql(self, kind: Kind) -> &'static str {
        let [sqlite, postgres, mysql] = match self {
            Key => ["integer primary key autoincrement", "serial", "int unsigned AUTO_INCREMENT"],
            Reference => ["integer", "integer", "int unsigned"],
            Number => ["integer", "integer", "int"],
            Large => ["bigint", "bigint", "bigint"],
            Truth => ["bool", "boolean", "tinyint(1)"],
            Text => ["varchar(255)", "text", "varchar(255)"],
            Name => ["varchar(255) NOT NULL", "text NOT NULL", "varchar(255) NOT NULL"],
            Bytes => ["blob", "bytea", "longblob"],
            Time => ["datetime", "timestamp with time zone", "datetime"],
        };
        match kind {
            Kind::Sqlite => sqlite,
            Kind::Postgres => postgres,
            Kind::MySql => mysql,
        }
    }
}

/// A column with the first schema that has it.
type Column = (&'static str, Type, u32);
/// An index with its columns, whether it is unique, and the first schema that has it.
type Index = (&'static str, &'static str, bool, u32);

struct Table {
    name: &'static str,
    since: u32,
    /// What every table but one begins with is left out.
    columns: &'static [Column],
    indexes: &'static [Index],
}

const TABLES: &[Table] = &[
    Table {
        name: "bundles",
        since: 4,
        columns: &[("trust_domain", Name, 4), ("data", Bytes, 4)],
        indexes: &[("uix_bundles_trust_domain", "trust_domain", true, 4)],
    },
    Table {
        name: "attested_node_entries",
        since: 0,
        columns: &[
            ("spiffe_id", Text, 0),
            ("data_type", Text, 0),
            ("serial_number", Text, 0),
            ("expires_at", Time, 0),
            ("new_serial_number", Text, 13),
            ("new_expires_at", Time, 13),
            ("can_reattest", Truth, 18),
            ("agent_version", Text, 24),
        ],
        indexes: &[
            ("uix_attested_node_entries_spiffe_id", "spiffe_id", true, 0),
            ("idx_attested_node_entries_expires_at", "expires_at", false, 15),
        ],
    },
    Table {
        name: "attested_node_entries_events",
        since: 22,
        columns: &[("spiffe_id", Text, 22)],
        indexes: &[],
    },
    Table {
        name: "node_resolver_map_entries",
        since: 0,
        columns: &[("spiffe_id", Text, 0), ("type", Text, 0), ("value", Text, 0)],
        indexes: &[("idx_node_resolver_map", "spiffe_id, type, value", true, 0)],
    },
    Table {
        name: "registered_entries",
        since: 0,
        columns: &[
            ("entry_id", Text, 0),
            ("spiffe_id", Text, 0),
            ("parent_id", Text, 0),
            ("ttl", Number, 0),
            ("admin", Truth, 5),
            ("downstream", Truth, 6),
            ("expiry", Large, 7),
            ("revision_number", Large, 14),
            ("store_svid", Truth, 16),
            ("hint", Text, 18),
            ("jwt_svid_ttl", Number, 19),
            ("additional_attributes", Bytes, 25),
        ],
        indexes: &[
            ("uix_registered_entries_entry_id", "entry_id", true, 0),
            ("idx_registered_entries_spiffe_id", "spiffe_id", false, 9),
            ("idx_registered_entries_parent_id", "parent_id", false, 9),
            ("idx_registered_entries_expiry", "expiry", false, 10),
            ("idx_registered_entries_hint", "hint", false, 21),
        ],
    },
    Table {
        name: "registered_entries_events",
        since: 22,
        columns: &[("entry_id", Text, 22)],
        indexes: &[],
    },
    Table {
        name: "selectors",
        since: 0,
        columns: &[("registered_entry_id", Reference, 0), ("type", Text, 0), ("value", Text, 0)],
        indexes: &[
            ("idx_selector_entry", "registered_entry_id, type, value", true, 0),
            ("idx_selectors_type_value", "type, value", false, 9),
        ],
    },
    Table {
        name: "dns_names",
        since: 8,
        columns: &[("registered_entry_id", Reference, 8), ("value", Text, 8)],
        indexes: &[("idx_dns_entry", "registered_entry_id, value", true, 8)],
    },
    Table {
        name: "join_tokens",
        since: 0,
        columns: &[("token", Text, 0), ("expiry", Large, 0)],
        indexes: &[("uix_join_tokens_token", "token", true, 0)],
    },
    Table {
        name: "federated_trust_domains",
        since: 17,
        columns: &[
            ("trust_domain", Name, 17),
            ("bundle_endpoint_url", Text, 17),
            ("bundle_endpoint_profile", Text, 17),
            ("endpoint_spiffe_id", Text, 17),
            ("implicit", Truth, 17),
        ],
        indexes: &[("uix_federated_trust_domains_trust_domain", "trust_domain", true, 17)],
    },
    Table {
        name: "ca_journals",
        since: 23,
        columns: &[
            ("data", Bytes, 23),
            ("active_x509_authority_id", Text, 23),
            ("active_jwt_authority_id", Text, 23),
        ],
        indexes: &[
            ("idx_ca_journals_active_x509_authority_id", "active_x509_authority_id", false, 23),
            ("idx_ca_journals_active_jwt_authority_id", "active_jwt_authority_id", false, 23),
        ],
    },
    Table {
        name: "migrations",
        since: 0,
        columns: &[("version", Number, 0), ("code_version", Text, 12)],
        indexes: &[],
    },
];

/// The table that links entries to the bundles that they federate with.
const JOIN_TABLE: &str = "federated_registration_entries";

/// Whether a schema has this column.
pub(super) fn has(table: &str, column: &str, schema: u32) -> bool {
    let table = TABLES.iter().find(|known| known.name == table && known.since <= schema);
    let columns = table.map_or(&[][..], |table| table.columns);
    columns.iter().any(|(name, _, since)| *name == column && *since <= schema)
}

/// The names of all tables of a schema.
pub(super) fn tables(schema: u32) -> impl Iterator<Item = &'static str> {
    let known = TABLES.iter().filter(move |table| table.since <= schema);
    known.map(|table| table.name).chain([JOIN_TABLE])
}

/// The statements that a first start of a server runs. A database `from_before` 0.7 has in its
/// first tables a column that nobody uses any more.
pub(super) fn create(kind: Kind, schema: u32, from_before: bool) -> String {
    let mut script = String::new();
    for table in TABLES.iter().filter(|table| table.since <= schema) {
        script += &table.create(kind, schema, from_before && table.since == 0, charset(kind));
    }
    let reference = Reference.sql(kind);
    script += &format!(
        "CREATE TABLE {JOIN_TABLE} (bundle_id {reference}, registered_entry_id {reference}, \
         PRIMARY KEY (bundle_id, registered_entry_id)){};\n\
         CREATE INDEX idx_{JOIN_TABLE}_registered_entry_id ON {JOIN_TABLE} (registered_entry_id);\n",
        charset(kind)
    );
    script
}

/// The statements by which later releases change the tables: columns are added at the end and hold
/// NULL, and on MySQL new tables are in the database's own character set.
pub(super) fn migrate(kind: Kind, from: u32, to: u32) -> String {
    let is_new = |since: u32| (from + 1..=to).contains(&since);
    let mut script = String::new();
    for table in TABLES {
        if is_new(table.since) {
            script += &table.create(kind, to, false, later_charset(kind, table.name));
            continue;
        }
        for (name, r#type, _) in table.columns.iter().filter(|column| is_new(column.2)) {
            let sql = r#type.sql(kind);
            script += &format!("ALTER TABLE {} ADD {name} {sql};\n", table.name);
        }
        for index in table.indexes.iter().filter(|index| is_new(index.3)) {
            script += &table.index(index);
        }
    }
    script
}

impl Table {
    fn create(&self, kind: Kind, schema: u32, with_deleted_at: bool, charset: &str) -> String {
        let time = Time.sql(kind);
        let mut columns = format!("id {}, created_at {time}, updated_at {time}", Key.sql(kind));
        if with_deleted_at {
            columns += &format!(", deleted_at {time}");
        }
        for (name, r#type, _) in self.columns.iter().filter(|column| column.2 <= schema) {
            columns += &format!(", {name} {}", r#type.sql(kind));
        }
        if kind != Kind::Sqlite {
            columns += ", PRIMARY KEY (id)";
        }
        let mut script = format!("CREATE TABLE {} ({columns}){charset};\n", self.name);
        for index in self.indexes.iter().filter(|index| index.3 <= schema) {
            script += &self.index(index);
        }
        script
    }

    fn index(&self, (name, columns, is_unique, _): &Index) -> String {
        let unique = if *is_unique { "UNIQUE " } else { "" };
        format!("CREATE {unique}INDEX {name} ON {} ({columns});\n", self.name)
    }
}

fn charset(kind: Kind) -> &'static str {
    match kind {
        Kind::MySql => " ENGINE=InnoDB ROW_FORMAT=DYNAMIC CHARSET=utf8 COLLATE=utf8_general_ci",
        _ => "",
    }
}

/// Databases have had one default or the other.
fn later_charset(kind: Kind, table: &str) -> &'static str {
    match kind {
        Kind::MySql if table == "federated_trust_domains" => " ENGINE=InnoDB CHARSET=latin1",
        Kind::MySql => " ENGINE=InnoDB CHARSET=utf8mb4",
        _ => "",
    }
}
