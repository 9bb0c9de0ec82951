//! `allowed_subscription_ids`: which subscriptions' machines may attest.

use std::collections::BTreeSet;

use spire_core::config::Reader;

const KEY: &str = "allowed_subscription_ids";

/// Subscriptions by their IDs, whose case does not count. None of them stands for all.
#[derive(Debug, Default)]
pub(crate) struct AllowedSubscriptions(BTreeSet<String>);

impl AllowedSubscriptions {
    /// Reads the key out of a plugin's section.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Self {
        let ids = reader.strings(KEY).unwrap_or_default();
        let ids: BTreeSet<String> = ids.iter().map(|id| id.trim().to_ascii_lowercase()).collect();
        if ids.contains("") {
            reader.reject(KEY, &format!("{KEY} must not hold an empty entry"), "remove it");
        }
        Self(ids)
    }

    /// Whether none is named.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether machines of the subscription `id` may attest.
    pub(crate) fn admit(&self, id: &str) -> bool {
        self.is_empty() || self.0.contains(&id.to_ascii_lowercase())
    }
}
