//! Attested nodes with their selectors, which are rows of their own in SPIRE. Those of nodes that
//! are gone come first.

use std::collections::{BTreeMap, BTreeSet};

use spire_core::id::SpiffeId;
use spire_core::selector::Selector;

use super::super::records::{Batch, Kind, Numbered, Position, Records};
use super::columns::{Column, Fields, Type, select};
use super::{Database, Page, Spire, Unfit, floor_second, parse, table_of, time};
use crate::store::Node;
use crate::store::copy::{BATCH, CopyError};
use crate::store::row::Row;
use crate::store::sql::Statement;

const COLUMNS: &[Column] = &[
    ("id", Type::Number),
    ("spiffe_id", Type::Text),
    ("data_type", Type::Text),
    ("serial_number", Type::Text),
    ("expires_at", Type::Time),
    ("new_serial_number", Type::Text),
    ("new_expires_at", Type::Time),
    ("can_reattest", Type::Truth),
    ("agent_version", Type::Text),
];

const SELECTORS: &str = "node_resolver_map_entries";

/// A selector with the ID of its agent.
const SELECTOR_COLUMNS: &[Column] =
    &[("id", Type::Number), ("spiffe_id", Type::Text), ("type", Type::Text), ("value", Type::Text)];

impl Spire {
    pub(super) async fn nodes(&mut self, from: Position) -> Result<Batch, CopyError> {
        match from {
            Position::Start => self.stray_selectors(0).await,
            Position::Stray(after) => self.stray_selectors(after).await,
            _ => self.attested_nodes(from).await,
        }
    }

    async fn attested_nodes(&mut self, from: Position) -> Result<Batch, CopyError> {
        let page = self.database.page(Kind::Node, COLUMNS, from, BATCH).await?;
        let mut batch = page.batch(Records::Nodes(Vec::new()));
        let mut selectors = self.database.node_selectors(&page).await?;
        let mut nodes = Vec::with_capacity(page.rows.len());
        for row in &page.rows {
            let number = row.integer(0);
            let number = number.map_err(|error| CopyError::Read { kind: Kind::Node, error })?;
            let found = selectors.remove(&number).unwrap_or_default();
            match self.node(&self.database.fields(row, COLUMNS), &found) {
                Ok(record) => nodes.push(Numbered { number, record }),
                Err(unfit) => {
                    let name = row.text(1).unwrap_or_default().to_owned();
                    batch.skipped.push(unfit.of(table_of(Kind::Node), name));
                }
            }
        }
        batch.records = Records::Nodes(nodes);
        Ok(batch)
    }

    fn node(&self, fields: &Fields<'_>, found: &[(String, String)]) -> Result<Node, Unfit> {
        let agent_id: SpiffeId = parse("spiffe_id", fields.text("spiffe_id")?)?;
        self.survey.check_member(&agent_id)?;
        let serial = |column| {
            let text = fields.text(column)?;
            match text.bytes().all(|byte| byte.is_ascii_digit()) {
                true => Ok(text.to_owned()),
                false => Err(Unfit::unreadable(format!("{column} {text:?} is no decimal number"))),
            }
        };
        let serial_number = serial("serial_number")?;
        let expires_at = fields.time("expires_at")?.map_or(time::ZERO, floor_second);
        // A ban leaves the end of the pending SVID behind.
        let is_banned = serial_number.is_empty();
        let new_serial = if is_banned { String::new() } else { serial("new_serial_number")? };
        let new_expires_at = fields.time("new_expires_at")?.map_or(expires_at, floor_second);
        let mut selectors = BTreeSet::new();
        for (kind, value) in found {
            let selector = Selector::new(kind, value);
            selectors.insert(selector.map_err(|error| {
                Unfit::unreadable(format!("selector {kind:?}, {value:?}: {error}"))
            })?);
        }
        Ok(Node {
            agent_id,
            attestation_type: fields.text("data_type")?.to_owned(),
            serial: serial_number,
            expires_at,
            new_expires_at: (!new_serial.is_empty()).then_some(new_expires_at),
            new_serial,
            can_reattest: fields.truth("can_reattest")?,
            selectors,
            agent_version: fields.text("agent_version")?.to_owned(),
        })
    }

    /// Selectors of agents that are not there: their first attestation failed, or they were deleted
    /// by an old release.
    async fn stray_selectors(&mut self, after: i64) -> Result<Batch, CopyError> {
        let rows = self.database.stray_selectors(after).await?;
        let read = |row: &Row| {
            let name = format!("{} {}:{}", row.text(1)?, row.text(2)?, row.text(3)?);
            Ok(Unfit::orphan("there is no such agent").of(SELECTORS, name))
        };
        let failed = |error| CopyError::Read { kind: Kind::Node, error };
        let skipped = rows.iter().map(read).collect::<Result<_, _>>().map_err(failed)?;
        let next = match rows.last() {
            Some(last) if rows.len() == BATCH as usize => {
                Position::Stray(last.integer(0).map_err(failed)?)
            }
            _ => Position::Number(0),
        };
        let records = Records::Nodes(Vec::new());
        Ok(Batch { records, read: 0, skipped, remarks: Vec::new(), next: Some(next) })
    }
}

impl Database {
    /// The selectors of the nodes of a page by the nodes' ids. The database decides which agent's
    /// they are, as it does for SPIRE: MySQL takes no notice of case.
    async fn node_selectors(
        &mut self,
        page: &Page,
    ) -> Result<BTreeMap<i64, Vec<(String, String)>>, CopyError> {
        const COLUMNS: &[Column] = &[("type", Type::Text), ("value", Type::Text)];
        let Some(existing) = self.catalog.columns(SELECTORS) else { return Ok(BTreeMap::new()) };
        let database = self.snapshot.settings.kind;
        let node = self.catalog.columns(table_of(Kind::Node));
        let id = select(&[("id", Type::Number)], node.unwrap_or(existing), "n.", database);
        let text = format!(
            "SELECT {id}, {} FROM {} n JOIN {SELECTORS} s ON s.spiffe_id = n.spiffe_id \
             WHERE n.id > ? AND n.id <= ?",
            select(COLUMNS, existing, "s.", database),
            table_of(Kind::Node)
        );
        let (after, last) = (page.after.unwrap_or(0), page.last.unwrap_or(i64::MAX));
        let statement = Statement::built(text, Vec::new()).bind(after).bind(last);
        let mut selectors = BTreeMap::<_, Vec<_>>::new();
        for row in self.fetch(Kind::Node, statement).await? {
            let read = || Ok((row.integer(0)?, row.text(1)?.to_owned(), row.text(2)?.to_owned()));
            let failed = |error| CopyError::Read { kind: Kind::Node, error };
            let (node, kind, value) = read().map_err(failed)?;
            selectors.entry(node).or_default().push((kind, value));
        }
        Ok(selectors)
    }

    async fn stray_selectors(&mut self, after: i64) -> Result<Vec<Row>, CopyError> {
        let Some(existing) = self.catalog.columns(SELECTORS) else { return Ok(Vec::new()) };
        let columns = select(SELECTOR_COLUMNS, existing, "s.", self.snapshot.settings.kind);
        let text = format!(
            "SELECT {columns} FROM {SELECTORS} s WHERE s.id > ? AND NOT EXISTS \
             (SELECT 1 FROM {} n WHERE n.spiffe_id = s.spiffe_id) ORDER BY s.id LIMIT {BATCH}",
            table_of(Kind::Node)
        );
        self.fetch(Kind::Node, Statement::built(text, Vec::new()).bind(after)).await
    }
}
