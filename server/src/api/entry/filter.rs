//! The filter of the two requests that list and count entries.

use spire_core::id::TrustDomain;
use spire_core::wire::convert;
use spire_core::wire::entry::{count_entries_request, list_entries_request};
use spire_core::wire::types::{FederatesWithMatch, SelectorMatch, Spiffeid};
use tonic::Status;

use crate::api::audit::Fields;
use crate::api::listing;
use crate::api::status::invalid;
use crate::store::EntryFilter;

/// A filter as it stands in either request.
#[derive(Debug, Default)]
pub(super) struct Filter {
    spiffe_id: Option<Spiffeid>,
    parent_id: Option<Spiffeid>,
    selectors: Option<SelectorMatch>,
    federates_with: Option<FederatesWithMatch>,
    hint: Option<String>,
    downstream: Option<bool>,
}

macro_rules! from_wire {
    ($wire:ty) => {
        impl From<$wire> for Filter {
            fn from(wire: $wire) -> Self {
                Self {
                    spiffe_id: wire.by_spiffe_id,
                    parent_id: wire.by_parent_id,
                    selectors: wire.by_selectors,
                    federates_with: wire.by_federates_with,
                    hint: wire.by_hint,
                    downstream: wire.by_downstream,
                }
            }
        }
    };
}
from_wire!(list_entries_request::Filter);
from_wire!(count_entries_request::Filter);

impl Filter {
    /// The filter as the store takes it.
    pub(super) fn checked(&self, trust_domain: &TrustDomain) -> Result<EntryFilter, Status> {
        let mut filter = EntryFilter::default();
        if let Some(id) = &self.parent_id {
            let id = convert::member_id(trust_domain, Some(id));
            filter.parent_id = Some(id.map_err(|why| invalid("malformed parent ID filter", why))?);
        }
        if let Some(id) = &self.spiffe_id {
            let id = convert::workload_id(trust_domain, Some(id));
            filter.spiffe_id = Some(id.map_err(|why| invalid("malformed SPIFFE ID filter", why))?);
        }
        if let Some(selectors) = &self.selectors {
            let what = "malformed selectors filter";
            filter.selectors = Some(listing::selector_match(what, selectors)?);
        }
        if let Some(domains) = &self.federates_with {
            let what = "malformed federates with filter";
            filter.federates_with = Some(listing::federates_with_match(what, domains)?);
        }
        filter.hint.clone_from(&self.hint);
        filter.downstream = self.downstream == Some(true);
        Ok(filter)
    }

    /// What the audit log says of it.
    pub(super) fn note(&self, fields: &mut Fields) {
        fields.add_wire_id("by_spiffe_id", self.spiffe_id.as_ref());
        fields.add_wire_id("by_parent_id", self.parent_id.as_ref());
        if let Some(wire) = &self.selectors {
            let selectors = wire.selectors.iter();
            let texts = selectors.map(|one| format!("{}:{}", one.r#type, one.value));
            fields.add_list("by_selectors", texts);
            fields.add("by_selector_match", wire.r#match().as_str_name());
        }
        if let Some(wire) = &self.federates_with {
            fields.add_list("by_federates_with", &wire.trust_domains);
        }
        if let Some(hint) = &self.hint {
            fields.add("by_hint", hint);
        }
        if let Some(downstream) = self.downstream {
            fields.add_value("by_downstream", downstream);
        }
    }
}
