//! Where the bundles of other trust domains are fetched, as rows. A copy keeps them; no server
//! reads them yet.

use super::StoreError;
use super::row::Row;
use super::sql::Value;
use crate::config::{FederatesWith, FederationProfile};

/// What is selected from `federation_relationships r`, in the order in which [`Kept::read`] reads it.
pub(super) const COLUMNS: &str =
    "r.number, r.trust_domain, r.bundle_endpoint_url, r.endpoint_spiffe_id";

/// The columns of [`values`], in order.
pub(super) const WRITTEN: [&str; 3] = ["trust_domain", "bundle_endpoint_url", "endpoint_spiffe_id"];

/// A relationship and its row's number.
pub(super) struct Kept {
    pub(super) number: i64,
    pub(super) relationship: FederatesWith,
}

impl Kept {
    /// Reads a row of [`COLUMNS`].
    pub(super) fn read(row: &Row) -> Result<Self, StoreError> {
        let name = row.text(1)?;
        let corrupt = || StoreError::Corrupt(format!("the relationship with {name:?} is unclear"));
        let profile = match row.text(3)? {
            "" => FederationProfile::HttpsWeb,
            id => FederationProfile::HttpsSpiffe {
                endpoint_spiffe_id: id.parse().map_err(|_| corrupt())?,
            },
        };
        let relationship = FederatesWith {
            trust_domain: name.parse().map_err(|_| corrupt())?,
            bundle_endpoint_url: row.text(2)?.to_owned(),
            profile,
        };
        Ok(Self { number: row.integer(0)?, relationship })
    }
}

/// What goes into a row.
pub(super) fn values(relationship: &FederatesWith) -> Vec<Value> {
    let endpoint_spiffe_id = match &relationship.profile {
        FederationProfile::HttpsWeb => "",
        FederationProfile::HttpsSpiffe { endpoint_spiffe_id } => endpoint_spiffe_id.as_str(),
    };
    vec![
        relationship.trust_domain.as_str().into(),
        relationship.bundle_endpoint_url.as_str().into(),
        endpoint_spiffe_id.into(),
    ]
}
