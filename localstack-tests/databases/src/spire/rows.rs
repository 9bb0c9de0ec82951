//! Rows as SPIRE's servers write them.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use prost::Message;

use super::messages::{Bundle, Entries};
use super::{Kind, SpireDatabase, schema};

/// What goes into a column.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Value {
    Null,
    Number(i64),
    Truth(bool),
    Text(String),
    Bytes(Vec<u8>),
    /// Written in UTC, as precisely as the database can.
    Instant(Timestamp),
    /// A text of SQL that this kind of database understands.
    Sql(String),
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}
impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Truth(truth)
    }
}
impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}
impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}
impl From<Timestamp> for Value {
    fn from(instant: Timestamp) -> Self {
        Self::Instant(instant)
    }
}

impl Value {
    fn sql(&self, kind: Kind) -> String {
        match self {
            Self::Null => "NULL".to_owned(),
            Self::Number(number) => number.to_string(),
            Self::Truth(truth) if kind == Kind::Postgres => truth.to_string(),
            Self::Truth(truth) => u8::from(*truth).to_string(),
            Self::Text(text) if kind == Kind::MySql => quoted(&text.replace('\\', "\\\\")),
            Self::Text(text) => quoted(text),
            Self::Bytes(bytes) if kind == Kind::Postgres => format!("'\\x{}'", hex(bytes)),
            Self::Bytes(bytes) => format!("x'{}'", hex(bytes)),
            Self::Instant(instant) => {
                let format = match kind {
                    Kind::MySql => "%Y-%m-%d %H:%M:%S",
                    _ => "%Y-%m-%d %H:%M:%S%.f+00:00",
                };
                let time = instant.to_zoned_datetime(TimeZone::UTC);
                quoted(&time.strftime(format).to_string())
            }
            Self::Sql(text) => text.clone(),
        }
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Columns with what goes into them.
pub type Columns<'c> = &'c [(&'c str, Value)];

/// When rows were made, where a test does not care.
const LONG_AGO: i64 = 1_700_000_000;

impl SpireDatabase {
    /// Notes a row, to be written by [`SpireDatabase::write`], and returns its id. Columns that the
    /// schema lacks are left out, as releases of that schema do.
    pub fn row(&mut self, table: &'static str, columns: Columns<'_>) -> i64 {
        let id = self.next_id(table);
        let made = Timestamp::from_second(LONG_AGO).expect("a second of our time").into();
        let first = [("id", Value::Number(id)), ("created_at", made)];
        let given = |name: &str| columns.iter().any(|column| column.0 == name);
        let first = first.iter().filter(|column| !given(column.0));
        let known = columns.iter().filter(|(name, _)| {
            *name == "created_at" || *name == "id" || schema::has(table, name, self.schema)
        });
        let all: Vec<_> = first.chain(known).collect();
        let names: Vec<_> = all.iter().map(|column| column.0).collect();
        let values: Vec<_> = all.iter().map(|column| column.1.sql(self.kind)).collect();
        let (names, values) = (names.join(", "), values.join(", "));
        self.script += &format!("INSERT INTO {table} ({names}) VALUES ({values});\n");
        id
    }

    /// A bundle, whose message names the trust domain.
    pub fn bundle(&mut self, bundle: &Bundle) -> i64 {
        let data = bundle.encode_to_vec().into();
        let trust_domain = bundle.trust_domain_id.as_str().into();
        self.row("bundles", &[("trust_domain", trust_domain), ("data", data)])
    }

    /// An agent with the SVID of this serial number; `more` columns win.
    pub fn agent(
        &mut self,
        spiffe_id: &str,
        data_type: &str,
        serial_number: &str,
        expires_at: Timestamp,
        more: Columns<'_>,
    ) -> i64 {
        let columns = [
            ("spiffe_id", spiffe_id.into()),
            ("data_type", data_type.into()),
            ("serial_number", serial_number.into()),
            ("expires_at", expires_at.into()),
            ("new_serial_number", "".into()),
            ("new_expires_at", Value::Null),
            ("can_reattest", false.into()),
            ("agent_version", "".into()),
        ];
        self.row("attested_node_entries", &with(&columns, more))
    }

    /// What was found out about a node, such as `x509pop:subject:cn:a`.
    pub fn node_selectors(&mut self, spiffe_id: &str, selectors: &[&str]) {
        for selector in selectors {
            let (kind, value) = selector.split_once(':').expect("type:value");
            let columns =
                [("spiffe_id", spiffe_id.into()), ("type", kind.into()), ("value", value.into())];
            self.row("node_resolver_map_entries", &columns);
        }
    }

    /// An entry, whose row's id is returned; `more` columns win.
    pub fn entry(
        &mut self,
        entry_id: &str,
        spiffe_id: &str,
        parent_id: &str,
        selectors: &[&str],
        more: Columns<'_>,
    ) -> i64 {
        let columns = [
            ("entry_id", entry_id.into()),
            ("spiffe_id", spiffe_id.into()),
            ("parent_id", parent_id.into()),
            ("ttl", 0.into()),
            ("jwt_svid_ttl", 0.into()),
            ("admin", false.into()),
            ("downstream", false.into()),
            ("store_svid", false.into()),
            ("expiry", 0.into()),
            ("revision_number", 0.into()),
            ("hint", "".into()),
        ];
        let row = self.row("registered_entries", &with(&columns, more));
        self.selectors(row, selectors);
        row
    }

    /// Selectors of the entry in a row.
    pub fn selectors(&mut self, entry: i64, selectors: &[&str]) {
        for selector in selectors {
            let (kind, value) = selector.split_once(':').expect("type:value");
            let entry = ("registered_entry_id", entry.into());
            self.row("selectors", &[entry, ("type", kind.into()), ("value", value.into())]);
        }
    }

    /// DNS names of the entry in a row.
    pub fn dns_names(&mut self, entry: i64, names: &[&str]) {
        for name in names {
            let entry = ("registered_entry_id", entry.into());
            self.row("dns_names", &[entry, ("value", (*name).into())]);
        }
    }

    /// Makes the entry in a row federate with the bundle in a row.
    pub fn federate(&mut self, entry: i64, bundle: i64) {
        self.script += &format!(
            "INSERT INTO federated_registration_entries (bundle_id, registered_entry_id) \
             VALUES ({bundle}, {entry});\n"
        );
    }

    /// A join token that expires at this Unix second.
    pub fn join_token(&mut self, token: &str, expiry: i64) -> i64 {
        self.row("join_tokens", &[("token", token.into()), ("expiry", expiry.into())])
    }

    /// A federation relationship with the trust domain of this bare name.
    pub fn relationship(
        &mut self,
        trust_domain: &str,
        url: &str,
        profile: &str,
        endpoint_spiffe_id: &str,
    ) -> i64 {
        let columns = [
            ("trust_domain", trust_domain.into()),
            ("bundle_endpoint_url", url.into()),
            ("bundle_endpoint_profile", profile.into()),
            ("endpoint_spiffe_id", endpoint_spiffe_id.into()),
            ("implicit", false.into()),
        ];
        self.row("federated_trust_domains", &columns)
    }

    /// A server's journal.
    pub fn ca_journal(&mut self, active_x509_authority_id: &str, entries: &Entries) -> i64 {
        let columns = [
            ("data", entries.encode_to_vec().into()),
            ("active_x509_authority_id", active_x509_authority_id.into()),
            ("active_jwt_authority_id", "".into()),
        ];
        self.row("ca_journals", &columns)
    }
}

/// `columns`, but `more` where both name one.
fn with<'c>(columns: &[(&'c str, Value)], more: Columns<'c>) -> Vec<(&'c str, Value)> {
    let is_more = |name: &str| more.iter().any(|column| column.0 == name);
    let mut all: Vec<_> = columns.iter().filter(|column| !is_more(column.0)).cloned().collect();
    all.extend(more.iter().cloned());
    all
}
