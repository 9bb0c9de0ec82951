//! No identity: the caller learns no more than that, the operator reads in the log why.

use std::collections::BTreeSet;

use spire_core::selector::Selector;
use tokio::time::Instant;
use tonic::Status;

use super::super::rate_limit::Method;
use super::WorkloadApi;
use crate::workload::caller::Caller;

/// Selectors of a caller that are logged at most.
const MAX_SELECTORS: usize = 64;

/// Environment variables may be secrets: they are logged only where the operator asks for them.
const SECRET_PREFIX: &str = "docker:env:";

impl WorkloadApi {
    /// Refuses a caller in which `found` was found. The agent itself, which looks how it is, needs
    /// no identity and is not worth a line. The entry that comes closest is looked for once
    /// a second for each set of selectors: that looks at all entries.
    pub(super) fn no_identity(
        &self,
        method: Method,
        caller: &Caller,
        found: &BTreeSet<Selector>,
    ) -> Status {
        let refused = Status::permission_denied("no identity issued");
        let process = caller.process();
        if process.pid == std::process::id() {
            return refused;
        }
        let nearest = self.diagnoses.take(found, Instant::now()).then(|| self.nearest_entry(found));
        tracing::error!(
            subsystem_name = "endpoints",
            service = "WorkloadAPI",
            method = method.name(),
            pid = process.pid,
            uid = process.uid,
            registered = false,
            selectors = self.shown(found),
            nearest_entry = nearest,
            last_sync_success = self.parts.cache.synced_at().map(tracing::field::display),
            "No identity issued"
        );
        refused
    }

    fn shown(&self, found: &BTreeSet<Selector>) -> String {
        let types = &self.parts.log_selectors;
        let is_shown = |selector: &&Selector| match types.is_empty() {
            true => !selector.as_str().starts_with(SECRET_PREFIX),
            false => types.contains(selector.kind()),
        };
        let shown = found.iter().filter(is_shown).take(MAX_SELECTORS).map(Selector::as_str);
        shown.collect::<Vec<_>>().join(",")
    }

    fn nearest_entry(&self, found: &BTreeSet<Selector>) -> String {
        let Some(nearest) = self.parts.cache.nearest(found) else {
            return "no entry is authorized for this agent".to_owned();
        };
        let missing: Vec<_> = nearest.missing.iter().map(Selector::as_str).collect();
        let (id, entry) = (&nearest.entry.spiffe_id, &nearest.entry.id);
        format!("entry {entry} of {id} lacks {}", missing.join(", "))
    }
}
