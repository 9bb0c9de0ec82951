//! Which entries a list holds, and how it finds them.

use spire_core::id::{SpiffeId, TrustDomain};
use spire_core::selector::Selector;

use super::database::Connection;
use super::entry_rows::{FEDERATIONS, SELECTORS};
use super::packing::of_selector;
use super::selection::{Selection, Start};
use super::{Page, SetMatch, StoreError};

/// Which entries a list holds: those that pass every filter that is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntryFilter {
    /// Those with this parent.
    pub parent_id: Option<SpiffeId>,
    /// Those with this SPIFFE ID.
    pub spiffe_id: Option<SpiffeId>,
    /// Those whose selectors match.
    pub selectors: Option<SetMatch<Selector>>,
    /// Those whose federated trust domains match.
    pub federates_with: Option<SetMatch<TrustDomain>>,
    /// Those with this hint; the empty hint is a hint like any other.
    pub hint: Option<String>,
    /// Only those of servers below this one.
    pub downstream: bool,
}

/// How the filters on sets find entries.
#[derive(Clone, Copy, Default)]
pub(super) struct Starts {
    selectors: Start,
    federates_with: Start,
}

/// Finds out where to start.
pub(super) async fn starts(
    connection: &mut Connection,
    filter: &EntryFilter,
) -> Result<Starts, StoreError> {
    let value = |selector: &Selector| of_selector(selector).into();
    let selectors = SELECTORS.start(connection, filter.selectors.as_ref(), value).await?;
    let value = |domain: &TrustDomain| domain.as_str().into();
    let wanted = filter.federates_with.as_ref();
    let federates_with = FEDERATIONS.start(connection, wanted, value).await?;
    Ok(Starts { selectors, federates_with })
}

/// The entries that pass `filter`.
pub(super) fn select(filter: &EntryFilter, page: Page, starts: Starts) -> Selection {
    let mut selection = Selection::new("entries", page);
    if let Some(parent_id) = &filter.parent_id {
        selection.filter("r.parent_id = ?", parent_id.as_str());
    }
    if let Some(spiffe_id) = &filter.spiffe_id {
        selection.filter("r.spiffe_id = ?", spiffe_id.as_str());
    }
    if let Some(hint) = &filter.hint {
        selection.filter("r.hint = ?", hint.as_str());
        if !hint.is_empty() {
            // The index holds only hints that are not empty.
            selection.only("r.hint <> ''");
        }
    }
    if filter.downstream {
        selection.only("r.downstream = 1");
    }
    if let Some(wanted) = &filter.selectors {
        let value = |selector: &Selector| of_selector(selector).into();
        selection.filter_set(&SELECTORS, wanted, starts.selectors, value);
    }
    if let Some(wanted) = &filter.federates_with {
        let value = |domain: &TrustDomain| domain.as_str().into();
        selection.filter_set(&FEDERATIONS, wanted, starts.federates_with, value);
    }
    selection
}
