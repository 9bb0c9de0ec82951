//! One caller that follows its identities.

use std::sync::Arc;

use super::update::Update;

/// A caller's view of the cache. While it lives, the SVIDs that it shows are kept and renewed.
#[derive(Debug)]
pub struct Subscription {}

impl Subscription {
    /// The complete present state at the first call; at later calls it waits for the next one that
    /// differs. States that nobody looked at in time are skipped. It never ends.
    ///
    /// It waits while an SVID of the caller is still being signed; dropping the future loses
    /// nothing.
    pub async fn next(&mut self) -> Arc<Update> {
        todo!()
    }
}
