//! What has to be known of the whole database before any of it is copied.

use std::collections::BTreeSet;
use std::path::Path;

use jiff::Timestamp;
use spire_core::id::{SpiffeId, TrustDomain};

use super::super::records::Kind;
use super::bundles::Names;
use super::{Database, Unfit, catalog, journals, table_of};
use crate::store::copy::{CopyError, Remark};
use crate::store::sql::Statement;
use crate::store::{CaJournal, DatabaseKind};

/// What was found out.
pub(super) struct Survey {
    /// Whose server this is, as its CAs, agents and entries say; `None` where there are none.
    pub(super) trust_domain: Option<TrustDomain>,
    /// The bundles that are copied.
    pub(super) bundles: Names,
    /// A journal that lies in the data folder alone.
    pub(super) journal: Option<CaJournal>,
    /// The highest id of any row.
    pub(super) last_number: i64,
    /// What there is to say about the database.
    pub(super) remarks: Vec<Remark>,
}

impl Survey {
    /// Looks through the database and the data folder.
    ///
    /// # Errors
    /// [`CopyError::Source`] where trust domains are mixed, or the file with the journal is broken.
    pub(super) async fn of(
        database: &mut Database,
        data_dir: Option<&Path>,
        now: Timestamp,
    ) -> Result<Self, CopyError> {
        let mut last_number = 0;
        for kind in Kind::ALL {
            last_number = last_number.max(database.last_number(kind).await?);
        }
        let mut remarks = database.remarks();
        let mut owners = Owners::default();
        let mut keys = BTreeSet::new();
        database
            .every_journal(now, |copied| {
                owners.add("the CA in a journal", copied.trust_domain.clone());
                keys.extend(copied.keys.iter().cloned());
            })
            .await?;
        let mut journal = None;
        if let Some(data_dir) = data_dir {
            let name = data_dir.display().to_string();
            let remark = |text: &str| Remark {
                table: table_of(Kind::CaJournal),
                name: name.clone(),
                text: text.to_owned(),
            };
            let found = journals::of_file(data_dir, last_number + 1, now).await;
            match found.map_err(|reason| catalog::refused(&database.snapshot, reason))? {
                None => remarks.push(remark("no journal.pem of use lies there")),
                Some(found) if !found.keys.is_disjoint(&keys) => {
                    remarks.push(remark(
                        "the journal of this server is in the database, which counts",
                    ));
                }
                Some(found) => {
                    owners.add("the CA in journal.pem", found.trust_domain);
                    journal = Some(found.journal);
                    last_number += 1;
                }
            }
        }
        for (kind, what) in [(Kind::Node, "an agent"), (Kind::Entry, "an entry")] {
            owners.add(what, database.first_trust_domain(kind).await?);
        }
        let trust_domain =
            owners.single().map_err(|reason| catalog::refused(&database.snapshot, reason))?;
        let bundles = database.bundle_names().await?;
        Ok(Self { trust_domain, bundles, journal, last_number, remarks })
    }

    /// Makes sure that an agent or a workload is of the server's own trust domain.
    pub(super) fn check_member(&self, id: &SpiffeId) -> Result<(), Unfit> {
        match &self.trust_domain {
            Some(own) if !id.is_member_of(own) => {
                Err(Unfit::unreadable(format!("{id} is not in the trust domain {own}")))
            }
            _ => Ok(()),
        }
    }
}

/// The trust domains that were met, each with what was met first of it.
#[derive(Default)]
struct Owners(Vec<(TrustDomain, &'static str)>);

impl Owners {
    fn add(&mut self, what: &'static str, trust_domain: Option<TrustDomain>) {
        if let Some(trust_domain) = trust_domain
            && !self.0.iter().any(|(known, _)| *known == trust_domain)
        {
            self.0.push((trust_domain, what));
        }
    }

    fn single(self) -> Result<Option<TrustDomain>, String> {
        match self.0.as_slice() {
            [] => Ok(None),
            [(one, _)] => Ok(Some(one.clone())),
            [(one, of_one), (other, of_other), ..] => Err(format!(
                "{of_one} is of the trust domain {one}, and {of_other} of {other}; a server has one \
                 trust domain, so delete with SPIRE what is not its own"
            )),
        }
    }
}

impl Database {
    fn remarks(&self) -> Vec<Remark> {
        let mut remarks = Vec::new();
        for table in self.catalog.unknown_tables() {
            let text = "no release of SPIRE that is known here has this table; it is not copied";
            let (table, name) = ("tables", table.to_owned());
            remarks.push(Remark { table, name, text: text.to_owned() });
        }
        if self.zone.is_local {
            let text = "times are read by this machine's time zone; where SPIRE ran with another \
                        one, write that one instead of Local";
            let (table, name) = ("times", "loc=Local".to_owned());
            remarks.push(Remark { table, name, text: text.to_owned() });
        }
        remarks
    }

    async fn last_number(&mut self, kind: Kind) -> Result<i64, CopyError> {
        let table = table_of(kind);
        if self.catalog.columns(table).is_none() {
            return Ok(0);
        }
        let last = match self.snapshot.settings.kind {
            DatabaseKind::Sqlite => format!("SELECT COALESCE(MAX(id), 0) FROM {table}"),
            DatabaseKind::Postgres => format!("SELECT COALESCE(MAX(id), 0)::bigint FROM {table}"),
            DatabaseKind::MySql => {
                format!("SELECT CAST(COALESCE(MAX(id), 0) AS SIGNED) FROM {table}")
            }
        };
        let last = self.snapshot.connection.fetch_number(Statement::built(last, Vec::new())).await;
        last.map_err(|error| CopyError::Read { kind, error })
    }

    /// Whose the first of the agents or entries is that can be read.
    async fn first_trust_domain(&mut self, kind: Kind) -> Result<Option<TrustDomain>, CopyError> {
        let text =
            format!("SELECT COALESCE(spiffe_id, '') FROM {} ORDER BY id LIMIT 20", table_of(kind));
        let rows = self.fetch(kind, Statement::built(text, Vec::new())).await?;
        let ids = rows.iter().filter_map(|row| SpiffeId::parse(row.text(0).ok()?).ok());
        Ok(ids.map(|id| id.trust_domain()).next())
    }
}
