//! Nodes as rows: the columns, their links, and the way there and back.

use std::collections::BTreeSet;

use jiff::Timestamp;
use spire_core::id::SpiffeId;
use spire_core::selector::Selector;

use super::database::{Connection, SHORT_STATEMENT};
use super::packing::{self, of_selector};
use super::row::Row;
use super::selection::{Links, Selection, Start};
use super::sql::{Statement, Value, look_up};
use super::transaction::Transaction;
use super::{Node, NodeFilter, Page, StoreError};

/// What is selected from `nodes r`, in the order in which [`Kept::read`] reads it.
pub(super) const COLUMNS: &str = "r.number, r.agent_id, r.attestation_type, r.serial_number, \
    r.expires_at, r.new_serial_number, r.new_expires_at, r.can_reattest, r.selectors, \
    r.agent_version";

/// The columns of [`values`], in order.
pub(super) const WRITTEN: [&str; 10] = [
    "agent_id",
    "attestation_type",
    "serial_number",
    "expires_at",
    "new_serial_number",
    "new_expires_at",
    "can_reattest",
    "selectors",
    "selector_count",
    "agent_version",
];

const SELECTORS: Links =
    Links { table: "node_selectors", member: "selector", count: "selector_count" };

/// A node and its row's number.
pub(super) struct Kept {
    pub(super) number: i64,
    pub(super) node: Node,
}

impl Kept {
    /// Reads a row of [`COLUMNS`].
    pub(super) fn read(row: &Row) -> Result<Self, StoreError> {
        let agent_id = row.text(1)?;
        let corrupt = |_| StoreError::Corrupt(format!("node {agent_id:?} has no SPIFFE ID"));
        let new_expires_at = match row.optional_integer(6)? {
            None => None,
            Some(_) => Some(row.timestamp(6)?),
        };
        let node = Node {
            agent_id: agent_id.parse().map_err(corrupt)?,
            attestation_type: row.text(2)?.to_owned(),
            serial: row.text(3)?.to_owned(),
            expires_at: row.timestamp(4)?,
            new_serial: row.text(5)?.to_owned(),
            new_expires_at,
            can_reattest: row.truth(7)?,
            selectors: packing::unpack(row.blob(8)?)?,
            agent_version: row.text(9)?.to_owned(),
        };
        Ok(Self { number: row.integer(0)?, node })
    }
}

/// What goes into a row.
pub(super) fn values(node: &Node) -> Vec<Value> {
    vec![
        node.agent_id.as_str().into(),
        node.attestation_type.as_str().into(),
        node.serial.as_str().into(),
        node.expires_at.as_second().into(),
        node.new_serial.as_str().into(),
        node.new_expires_at.map(Timestamp::as_second).into(),
        node.can_reattest.into(),
        packing::pack(node.selectors.iter()).into(),
        (node.selectors.len() as i64).into(),
        node.agent_version.as_str().into(),
    ]
}

/// Writes the links by which the node with this number is found.
pub(super) async fn link(
    tx: &mut Transaction,
    number: i64,
    selectors: &BTreeSet<Selector>,
) -> Result<(), StoreError> {
    tx.insert("node_selectors", &["selector", "owner"], links(number, selectors)).await
}

/// Deletes what [`link`] wrote for nodes with these numbers.
pub(super) async fn unlink(
    tx: &mut Transaction,
    nodes: &[(i64, &BTreeSet<Selector>)],
) -> Result<(), StoreError> {
    let rows: Vec<_> =
        nodes.iter().flat_map(|&(number, selectors)| links(number, selectors)).collect();
    tx.unlink("node_selectors", "selector", &rows).await
}

/// The rows of a node's links: selector, owner.
pub(super) fn links(number: i64, selectors: &BTreeSet<Selector>) -> Vec<Vec<Value>> {
    selectors.iter().map(|selector| vec![of_selector(selector).into(), number.into()]).collect()
}

/// The nodes with these IDs.
pub(super) async fn by_ids(
    connection: &mut Connection,
    ids: &[SpiffeId],
) -> Result<Vec<Kept>, StoreError> {
    connection.allow(SHORT_STATEMENT);
    let ids = ids.iter().map(|id| id.as_str().into()).collect();
    let mut found = Vec::new();
    for statement in find_by_ids(ids) {
        found.extend(fetch(connection, statement).await?);
    }
    Ok(found)
}

/// The statements that find nodes by their IDs.
pub(super) fn find_by_ids(ids: Vec<Value>) -> Vec<Statement> {
    look_up(&format!("SELECT {COLUMNS} FROM nodes r WHERE r.agent_id IN"), ids, "")
}

/// The nodes that a selection of [`COLUMNS`] yields.
pub(super) async fn fetch(
    connection: &mut Connection,
    statement: Statement,
) -> Result<Vec<Kept>, StoreError> {
    connection.fetch(statement).await?.iter().map(Kept::read).collect()
}

/// The statement that finds nodes that are not banned and whose SVID ended before `before`.
pub(super) fn find_expired(
    before: Timestamp,
    include_non_reattestable: bool,
    limit: u32,
) -> Statement {
    // The sign keeps SQLite from walking all that may attest again, which are mostly not expired.
    let which = if include_non_reattestable { "" } else { "AND +r.can_reattest = 1 " };
    let text = format!(
        "SELECT {COLUMNS} FROM nodes r WHERE r.expires_at < ? AND r.serial_number <> '' {which}\
         ORDER BY r.expires_at, r.number LIMIT ?"
    );
    Statement::built(text, Vec::new()).bind(before.as_second()).bind(limit)
}

/// The nodes that pass `filter`, as [`select`] finds them.
pub(super) async fn list(
    connection: &mut Connection,
    filter: &NodeFilter,
    page: Page,
) -> Result<Vec<Kept>, StoreError> {
    let start = start(connection, filter).await?;
    fetch(connection, select(filter, page, start).rows(COLUMNS)).await
}

/// How many nodes pass `filter`.
pub(super) async fn count(
    connection: &mut Connection,
    filter: &NodeFilter,
) -> Result<i64, StoreError> {
    let start = start(connection, filter).await?;
    connection.fetch_number(select(filter, Page::default(), start).count()).await
}

async fn start(connection: &mut Connection, filter: &NodeFilter) -> Result<Start, StoreError> {
    let value = |selector: &Selector| of_selector(selector).into();
    SELECTORS.start(connection, filter.selectors.as_ref(), value).await
}

/// The nodes that pass `filter`, whose filter on selectors begins at `start`.
pub(super) fn select(filter: &NodeFilter, page: Page, start: Start) -> Selection {
    let mut selection = Selection::new("nodes", page);
    if let Some(attestation_type) = &filter.attestation_type {
        selection.filter("r.attestation_type = ?", attestation_type.as_str());
    }
    match filter.banned {
        Some(true) => selection.only("r.serial_number = ''"),
        Some(false) => selection.only("r.serial_number <> ''"),
        None => {}
    }
    if let Some(can_reattest) = filter.can_reattest {
        selection.filter("r.can_reattest = ?", can_reattest);
    }
    if let Some(time) = filter.expires_before {
        selection.filter("r.expires_at < ?", time.as_second());
    }
    if let Some(wanted) = &filter.selectors {
        selection.filter_set(&SELECTORS, wanted, start, |selector| of_selector(selector).into());
    }
    selection
}

#[cfg(test)]
mod tests {
    use super::super::{Attestation, KeyFingerprint, SetMatch, SetRule, Settings, Store};
    use super::*;

    #[tokio::test]
    async fn a_list_begins_with_the_rarest_selector() {
        let store = Store::open(&Settings::new("sqlite3", ":memory:").unwrap()).await.unwrap();
        let selectors = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        for (number, texts) in [&["s:b", "s:c"][..], &["s:b"], &["s:b"]].into_iter().enumerate() {
            let attestation = Attestation {
                agent_id: format!("spiffe://example.org/spire/agent/{number}").parse().unwrap(),
                attestation_type: "x509pop".to_owned(),
                serial: "1".to_owned(),
                expires_at: Timestamp::MAX,
                can_reattest: true,
                selectors: selectors(texts),
                key: KeyFingerprint([0; 32]),
                join_token: None,
            };
            store.record_attestation(attestation, Timestamp::UNIX_EPOCH).await.unwrap();
        }
        for (texts, rule, expected) in [
            (&["s:b", "s:c"][..], SetRule::Superset, 1),
            (&["s:b", "s:c", "s:d"], SetRule::Exact, 2),
            (&["s:b"], SetRule::Any, 0),
            (&["s:c"], SetRule::Exact, 0),
        ] {
            let wanted = Some(SetMatch { members: selectors(texts), rule });
            let filter = NodeFilter { selectors: wanted, ..NodeFilter::default() };
            let found =
                store.read(filter, |connection, filter| Box::pin(start(connection, filter)));
            let start = found.await.unwrap();
            assert_eq!((start.rarest, start.is_common), (expected, false), "{texts:?}");
        }
    }
}
