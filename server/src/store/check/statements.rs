//! The statements behind lists and behind what servers do all the time, and how they find rows.

use jiff::Timestamp;
use spire_core::id::{SpiffeId, TrustDomain};
use spire_core::selector::Selector;

use super::super::database::Connection;
use super::super::entries;
use super::super::entry_filter::{self, EntryFilter, Starts};
use super::super::nodes::NodeFilter;
use super::super::packing::of_selector;
use super::super::selection::Start;
use super::super::sql::Statement;
use super::super::{Page, SetMatch, SetRule, StoreError, changes};
use super::super::{entry_rows, node_rows};
use super::{LARGE, Plan, Report, plan};

/// A statement with what it is for.
struct Named {
    name: &'static str,
    /// The table whose size decides whether it matters that all of it is read.
    table: &'static str,
    statement: Statement,
    /// Whether it reads a table in its order until a page is full.
    walks: bool,
}

/// Asks how each statement would be run, and tells which of them read all of a large table.
pub(super) async fn look(
    connection: &mut Connection,
    report: &mut Report,
) -> Result<(), StoreError> {
    let Some(all) = all() else {
        return Err(StoreError::Invalid("a statement cannot be built".into()));
    };
    for Named { name, table, statement, walks } in all {
        let explain = connection.dialect().explain;
        let text = format!("{explain} {}", statement.text);
        let explained = Statement::built(text, statement.arguments);
        let rows = connection.fetch(explained).await?;
        let access = plan::read(connection.dialect(), &rows)?;
        let rows = report.rows_of(table);
        if !walks && access.reads_all_of.is_some() && rows >= LARGE {
            report.problem(
                format!("\"{name}\" reads all {rows} rows of {table}"),
                format!(
                    "create what is missing of its indexes; if none is, run \"ANALYZE{} {table}\"",
                    connection.dialect().analyze
                ),
            );
        }
        let plan::Access { indexes, reads_all_of } = access;
        report.statements.push(Plan { statement: name, indexes, reads_all_of });
    }
    Ok(())
}

/// All of them, with parameters that fit nothing.
fn all() -> Option<Vec<Named>> {
    let id = SpiffeId::parse("spiffe://example.org/nobody").ok()?;
    let domain: TrustDomain = "example.org".parse().ok()?;
    let selectors = ["1", "2"]
        .map(|value| Selector::new("nobody", value))
        .into_iter()
        .collect::<Result<Vec<_>, _>>()
        .ok()?;
    let page = Page { after: None, limit: Some(100) };
    let by_selectors = |rule| SetMatch { members: selectors.iter().cloned().collect(), rule };

    let mut all = Vec::new();
    let none = EntryFilter::default;
    let lists = [
        ("list entries by parent", EntryFilter { parent_id: Some(id.clone()), ..none() }),
        ("list entries by SPIFFE ID", EntryFilter { spiffe_id: Some(id.clone()), ..none() }),
        ("list entries by hint", EntryFilter { hint: Some("nobody".to_owned()), ..none() }),
        ("list downstream entries", EntryFilter { downstream: true, ..none() }),
        (
            "list entries by selectors, exactly",
            EntryFilter { selectors: Some(by_selectors(SetRule::Exact)), ..none() },
        ),
        (
            "list entries by selectors, subset",
            EntryFilter { selectors: Some(by_selectors(SetRule::Subset)), ..none() },
        ),
        (
            "list entries by selectors, superset",
            EntryFilter { selectors: Some(by_selectors(SetRule::Superset)), ..none() },
        ),
        (
            "list entries by selectors, any",
            EntryFilter { selectors: Some(by_selectors(SetRule::Any)), ..none() },
        ),
        (
            "list entries by federated trust domain",
            EntryFilter {
                federates_with: Some(SetMatch { members: [domain].into(), rule: SetRule::Any }),
                ..none()
            },
        ),
    ];
    let mut add = |name, table, statement, walks| {
        all.push(Named { name, table, statement, walks });
    };
    let rows = |filter: &EntryFilter| {
        entry_filter::select(filter, page, Starts::default()).rows(entry_rows::COLUMNS)
    };
    add("list entries", "entries", rows(&none()), true);
    for (name, filter) in lists {
        add(name, "entries", rows(&filter), false);
    }
    let first = |statements: Vec<Statement>| statements.into_iter().next();
    let entry_id = vec!["nobody".into()];
    add("read entries by ID", "entries", first(entries::find_by_ids(entry_id))?, false);
    let identity = vec![of_selector(&selectors[0]).into()];
    add("find equal entries", "entries", first(entries::find_similar(identity))?, false);
    let now = Timestamp::UNIX_EPOCH;
    add("prune expired entries", "entries", entries::find_expired(now, 100), false);

    let rows = |filter: &NodeFilter| {
        node_rows::select(filter, page, Start::default()).rows(node_rows::COLUMNS)
    };
    let none = NodeFilter::default;
    add("list agents", "nodes", rows(&none()), true);
    let kind = Some("nobody".to_owned());
    let filter = NodeFilter { attestation_type: kind, ..none() };
    add("list agents by attestation type", "nodes", rows(&filter), false);
    let filter = NodeFilter { selectors: Some(by_selectors(SetRule::Superset)), ..none() };
    add("list agents by selectors", "nodes", rows(&filter), false);
    let filter = NodeFilter { banned: Some(true), ..none() };
    add("list banned agents", "nodes", rows(&filter), false);
    // Where many are such a page is soon full.
    let filter = NodeFilter { can_reattest: Some(false), ..none() };
    add("list agents that cannot attest again", "nodes", rows(&filter), true);
    let filter = NodeFilter { expires_before: Some(now), ..none() };
    add("list expired agents", "nodes", rows(&filter), false);
    add("prune expired agents", "nodes", node_rows::find_expired(now, false, 100), false);
    let agent_id = vec![id.as_str().into()];
    add("read agents by ID", "nodes", first(node_rows::find_by_ids(agent_id))?, false);
    add("read the change log", "changes", changes::read_from(0, 1000), false);
    Some(all)
}
