//! Where the bundles of other trust domains are fetched.

use spire_core::id::TrustDomain;

use super::super::records::{Batch, Kind, Numbered, Position, Records};
use super::columns::{Column, Fields, Type};
use super::{Spire, Unfit, parse, table_of};
use crate::config::{FederatesWith, FederationProfile};
use crate::store::copy::{BATCH, CopyError};

const COLUMNS: &[Column] = &[
    ("id", Type::Number),
    ("trust_domain", Type::Text),
    ("bundle_endpoint_url", Type::Text),
    ("bundle_endpoint_profile", Type::Text),
    ("endpoint_spiffe_id", Type::Text),
];

impl Spire {
    pub(super) async fn relationships(&mut self, from: Position) -> Result<Batch, CopyError> {
        let page = self.database.page(Kind::Relationship, COLUMNS, from, BATCH).await?;
        let mut batch = page.batch(Records::Relationships(Vec::new()));
        let mut relationships = Vec::new();
        for row in &page.rows {
            match relationship(&self.database.fields(row, COLUMNS)) {
                Ok(relationship) => relationships.push(relationship),
                Err(unfit) => {
                    let name = row.text(1).unwrap_or_default().to_owned();
                    batch.skipped.push(unfit.of(table_of(Kind::Relationship), name));
                }
            }
        }
        batch.records = Records::Relationships(relationships);
        Ok(batch)
    }
}

fn relationship(fields: &Fields<'_>) -> Result<Numbered<FederatesWith>, Unfit> {
    let trust_domain: TrustDomain = parse("trust_domain", fields.text("trust_domain")?)?;
    let url = fields.text("bundle_endpoint_url")?;
    if !url.starts_with("https://") {
        return Err(Unfit::unreadable(format!("bundle_endpoint_url {url:?} is not https")));
    }
    let profile = match fields.text("bundle_endpoint_profile")? {
        // An ID of the time before may be left in the column for it.
        "https_web" => FederationProfile::HttpsWeb,
        "https_spiffe" => FederationProfile::HttpsSpiffe {
            endpoint_spiffe_id: parse("endpoint_spiffe_id", fields.text("endpoint_spiffe_id")?)?,
        },
        other => {
            return Err(Unfit::unreadable(format!("bundle_endpoint_profile {other:?} is unknown")));
        }
    };
    let record = FederatesWith { trust_domain, bundle_endpoint_url: url.to_owned(), profile };
    Ok(Numbered { number: fields.number("id")?, record })
}
