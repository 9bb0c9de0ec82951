//! Join tokens, of which ours keep the hash alone.

use jiff::Timestamp;

use super::super::records::{Batch, JoinToken, Kind, Position, Records};
use super::columns::{Column, Fields, Type};
use super::{Spire, Unfit, table_of};
use crate::store::copy::{BATCH, CopyError};
use crate::store::packing::sha256;

const COLUMNS: &[Column] = &[("id", Type::Number), ("token", Type::Text), ("expiry", Type::Number)];

impl Spire {
    pub(super) async fn tokens(&mut self, from: Position) -> Result<Batch, CopyError> {
        let page = self.database.page(Kind::JoinToken, COLUMNS, from, BATCH).await?;
        let mut batch = page.batch(Records::JoinTokens(Vec::new()));
        let mut tokens = Vec::new();
        for row in &page.rows {
            match token(&self.database.fields(row, COLUMNS), self.now) {
                Ok(token) => tokens.push(token),
                Err(unfit) => {
                    // Its text is a secret.
                    let name = format!("row {}", row.integer(0).unwrap_or_default());
                    batch.skipped.push(unfit.of(table_of(Kind::JoinToken), name));
                }
            }
        }
        batch.records = Records::JoinTokens(tokens);
        Ok(batch)
    }
}

fn token(fields: &Fields<'_>, now: Timestamp) -> Result<JoinToken, Unfit> {
    let expiry = fields.number("expiry")?;
    let expires_at = Timestamp::from_second(expiry)
        .map_err(|_| Unfit::unreadable(format!("expiry {expiry} is no point in time")))?;
    if expiry < now.as_second() {
        return Err(Unfit::expired(format!("it expired at {expires_at} and nobody used it")));
    }
    let hash = sha256(fields.text("token")?.as_bytes());
    Ok(JoinToken { hash, expires_at, redeemed_by: None })
}
