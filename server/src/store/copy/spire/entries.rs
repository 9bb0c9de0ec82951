//! Registration entries with their selectors, DNS names and trust domains, which are rows of their
//! own in SPIRE. Those of entries that are gone are found on the way.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use spire_core::entry::{DnsName, Entry};
use spire_core::id::{SpiffeId, TrustDomain};
use spire_core::selector::{RequiredSelectors, Selector};

use super::super::records::{Batch, Kind, Numbered, Position, Records, Skipped};
use super::columns::{Column, Fields, Type, select};
use super::{Database, Page, Spire, Unfit, attributes, floor_second, parse, table_of};
use crate::store::copy::Remark;
use crate::store::copy::{BATCH, CopyError};
use crate::store::row::Row;
use crate::store::sql::{Statement, Value};

const COLUMNS: &[Column] = &[
    ("id", Type::Number),
    ("entry_id", Type::Text),
    ("created_at", Type::Time),
    ("spiffe_id", Type::Text),
    ("parent_id", Type::Text),
    ("ttl", Type::Number),
    ("jwt_svid_ttl", Type::Number),
    ("admin", Type::Truth),
    ("downstream", Type::Truth),
    ("store_svid", Type::Truth),
    ("expiry", Type::Number),
    ("revision_number", Type::Number),
    ("hint", Type::Text),
    ("additional_attributes", Type::Bytes),
];

/// A table of rows that belong to entries.
struct Parts {
    table: &'static str,
    /// The entry's row, then what there is to know.
    columns: &'static [Column],
    /// Rows are read in the order of this column.
    order: &'static str,
}

const SELECTORS: Parts = Parts {
    table: "selectors",
    columns: &[("registered_entry_id", Type::Number), ("type", Type::Text), ("value", Type::Text)],
    order: "id",
};

/// Their order decides which one becomes a certificate's common name.
const DNS_NAMES: Parts = Parts {
    table: "dns_names",
    columns: &[("registered_entry_id", Type::Number), ("value", Type::Text)],
    order: "id",
};

const FEDERATIONS: Parts = Parts {
    table: "federated_registration_entries",
    columns: &[("registered_entry_id", Type::Number), ("bundle_id", Type::Number)],
    order: "bundle_id",
};

/// What belongs to an entry, as it is in its rows.
#[derive(Default)]
struct Belongings {
    selectors: Vec<(String, String)>,
    dns_names: Vec<String>,
    federates_with: BTreeSet<TrustDomain>,
}

impl Spire {
    pub(super) async fn entries(&mut self, from: Position) -> Result<Batch, CopyError> {
        let page = self.database.page(Kind::Entry, COLUMNS, from, BATCH).await?;
        let mut batch = page.batch(Records::Entries(Vec::new()));
        let mut belongings = self.belongings(&page, &mut batch.skipped).await?;
        let table = table_of(Kind::Entry);
        let mut entries = Vec::with_capacity(page.rows.len());
        let has_jwt_svid_ttl = self.database.has_jwt_svid_ttl();
        for row in &page.rows {
            let fields = self.database.fields(row, COLUMNS);
            let mut name = row.text(1).unwrap_or_default().to_owned();
            if name.is_empty() {
                name = format!("row {}", row.integer(0).unwrap_or_default());
            }
            let number = fields.number("id");
            let number = number.map_err(|error| CopyError::Read { kind: Kind::Entry, error })?;
            let belongings = belongings.remove(&number).unwrap_or_default();
            match self.entry(&fields, belongings) {
                Ok((record, has_more)) => {
                    let mut remark = |text: &str| {
                        let (name, text) = (name.clone(), text.to_owned());
                        batch.remarks.push(Remark { table, name, text });
                    };
                    if has_more {
                        remark(
                            "additional_attributes holds fields that no server here knows, and \
                             they are not copied",
                        );
                    }
                    if record.x509_svid_ttl != 0 && !has_jwt_svid_ttl {
                        remark(
                            "its lifetime counted for JWT-SVIDs, too; as after SPIRE's own \
                             upgrade these now get the server's default, unless you set \
                             -jwtSVIDTTL",
                        );
                    }
                    entries.push(Numbered { number, record });
                }
                Err(unfit) => batch.skipped.push(unfit.of(table, name)),
            }
        }
        batch.records = Records::Entries(entries);
        Ok(batch)
    }

    /// What belongs to the entries of a page. What belongs to none that exists is skipped.
    async fn belongings(
        &mut self,
        page: &Page,
        skipped: &mut Vec<Skipped>,
    ) -> Result<BTreeMap<i64, Belongings>, CopyError> {
        let failed = |error| CopyError::Read { kind: Kind::Entry, error };
        let mut all = BTreeMap::new();
        for row in &page.rows {
            all.insert(row.integer(0).map_err(failed)?, Belongings::default());
        }
        let orphan = |table, owner: i64, what: String| {
            let reason = format!("the entry of row {owner} is gone");
            Unfit::orphan(reason).of(table, what)
        };
        for row in self.database.parts(&SELECTORS, page).await? {
            let owner = row.integer(0).map_err(failed)?;
            let (kind, value) = (row.text(1).map_err(failed)?, row.text(2).map_err(failed)?);
            match all.get_mut(&owner) {
                Some(of) => of.selectors.push((kind.to_owned(), value.to_owned())),
                None => skipped.push(orphan(SELECTORS.table, owner, format!("{kind}:{value}"))),
            }
        }
        for row in self.database.parts(&DNS_NAMES, page).await? {
            let owner = row.integer(0).map_err(failed)?;
            let name = row.text(1).map_err(failed)?.to_owned();
            match all.get_mut(&owner) {
                Some(of) => of.dns_names.push(name),
                None => skipped.push(orphan(DNS_NAMES.table, owner, name)),
            }
        }
        for row in self.database.parts(&FEDERATIONS, page).await? {
            let owner = row.integer(0).map_err(failed)?;
            let bundle = row.integer(1).map_err(failed)?;
            let trust_domain = self.survey.bundles.get(&bundle);
            let name = format!("entry of row {owner} with bundle of row {bundle}");
            match (all.get_mut(&owner), trust_domain) {
                (Some(of), Some(trust_domain)) => {
                    of.federates_with.insert(trust_domain.clone());
                }
                (Some(_), None) => {
                    let unfit = Unfit::orphan(format!("the bundle of row {bundle} is gone"));
                    skipped.push(unfit.of(FEDERATIONS.table, name));
                }
                (None, _) => skipped.push(orphan(FEDERATIONS.table, owner, name)),
            }
        }
        Ok(all)
    }

    /// An entry, and whether it has attributes that are not known.
    fn entry(&self, fields: &Fields<'_>, belongings: Belongings) -> Result<(Entry, bool), Unfit> {
        let id = fields.text("entry_id")?;
        if id.is_empty() {
            return Err(Unfit::orphan("it has no entry ID, so that no server shows or serves it"));
        }
        let expires_at =
            match fields.number("expiry")? {
                0 => None,
                second => Some(Timestamp::from_second(second).map_err(|_| {
                    Unfit::unreadable(format!("expiry {second} is no point in time"))
                })?),
            };
        if let Some(expires_at) = expires_at.filter(|at| at.as_second() < self.now.as_second()) {
            return Err(Unfit::expired(format!("it expired at {expires_at}")));
        }
        let ttl = |column| {
            let number = fields.number(column)?;
            u32::try_from(number)
                .map_err(|_| Unfit::unreadable(format!("{column} {number} is no lifetime")))
        };
        let spiffe_id: SpiffeId = parse("spiffe_id", fields.text("spiffe_id")?)?;
        let parent_id: SpiffeId = parse("parent_id", fields.text("parent_id")?)?;
        for id in [&spiffe_id, &parent_id] {
            self.survey.check_member(id)?;
        }
        let (attributes, has_more) = attributes::read(fields.bytes("additional_attributes")?)?;
        let mut dns_names = Vec::<DnsName>::with_capacity(belongings.dns_names.len());
        for name in &belongings.dns_names {
            dns_names.push(parse("DNS name", name)?);
        }
        let entry = Entry {
            id: parse("entry_id", id)?,
            spiffe_id,
            parent_id,
            selectors: required(&belongings.selectors)?,
            x509_svid_ttl: ttl("ttl")?,
            jwt_svid_ttl: ttl("jwt_svid_ttl")?,
            federates_with: belongings.federates_with,
            dns_names,
            admin: fields.truth("admin")?,
            downstream: fields.truth("downstream")?,
            store_svid: fields.truth("store_svid")?,
            expires_at,
            hint: fields
                .text("hint")?
                .parse()
                .map_err(|error| Unfit::unreadable(format!("hint: {error}")))?,
            revision_number: fields.number("revision_number")?,
            // Rounded as SPIRE shows it, since agents compare it.
            created_at: fields.time("created_at")?.map_or(Timestamp::UNIX_EPOCH, rounded),
            attributes,
        };
        Ok((entry, has_more))
    }
}

impl Database {
    fn has_jwt_svid_ttl(&self) -> bool {
        let columns = self.catalog.columns(table_of(Kind::Entry));
        columns.is_some_and(|columns| columns.contains("jwt_svid_ttl"))
    }

    /// Rows that belong to the entries of a page, or to entries between them that are gone.
    async fn parts(&mut self, parts: &Parts, page: &Page) -> Result<Vec<Row>, CopyError> {
        let Parts { table, columns, order } = parts;
        let Some(existing) = self.catalog.columns(table) else { return Ok(Vec::new()) };
        let select = select(columns, existing, "", self.snapshot.settings.kind);
        let (condition, arguments) = match (page.after, page.last) {
            (None, None) => ("1 = 1", Vec::new()),
            // An id that is NULL lies before all others.
            (None, Some(last)) => (
                "(registered_entry_id <= ? OR registered_entry_id IS NULL)",
                vec![Value::Integer(last)],
            ),
            (Some(after), None) => ("registered_entry_id > ?", vec![Value::Integer(after)]),
            (Some(after), Some(last)) => (
                "registered_entry_id > ? AND registered_entry_id <= ?",
                vec![Value::Integer(after), Value::Integer(last)],
            ),
        };
        let text = format!("SELECT {select} FROM {table} WHERE {condition} ORDER BY {order}");
        self.fetch(Kind::Entry, Statement::built(text, arguments)).await
    }
}

fn required(selectors: &[(String, String)]) -> Result<RequiredSelectors, Unfit> {
    let mut set = BTreeSet::new();
    for (kind, value) in selectors {
        let selector = Selector::new(kind, value);
        set.insert(selector.map_err(|error| {
            Unfit::unreadable(format!("selector {kind:?}, {value:?}: {error}"))
        })?);
    }
    RequiredSelectors::new(set)
        .map_err(|_| Unfit::unreadable("it has no selectors, so that it fits no workload"))
}

/// The nearest whole second, of two the later.
fn rounded(time: Timestamp) -> Timestamp {
    let half = jiff::SignedDuration::from_millis(500);
    time.checked_add(half).map_or(time, floor_second)
}
