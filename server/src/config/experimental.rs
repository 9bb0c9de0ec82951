//! `experimental { … }`: what may change in any release, and federation as it was written there
//! up to v0.12.

use std::path::PathBuf;
use std::time::Duration;

use spire_core::config::{self, Reader};

use super::federation::{self, FederationConfig};

/// Everything in the block; fields are named as its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExperimentalConfig {
    /// How often what agents may serve is looked at again.
    pub cache_reload_interval: Duration,
    /// How long changes stay in the change log.
    pub prune_events_older_than: Duration,
    /// How often it is looked whether an authority is due to be prepared or activated. A key that
    /// SPIRE does not have.
    pub rotation_check_interval: Duration,
    /// Whether each agent gets the selector `spiffe_id:<its ID>`.
    pub agent_spiffe_id_as_selector: bool,
    /// A policy of the operator's own, in Rego.
    pub auth_opa_policy_engine: Option<PolicyFiles>,
}

/// `auth_opa_policy_engine { local { … } }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFiles {
    /// The policy.
    pub rego_path: PathBuf,
    /// The data that it refers to.
    pub policy_data_path: Option<PathBuf>,
}

impl Default for ExperimentalConfig {
    fn default() -> Self {
        Self {
            cache_reload_interval: Duration::from_secs(5),
            prune_events_older_than: Duration::from_hours(12),
            rotation_check_interval: Duration::from_secs(10),
            agent_spiffe_id_as_selector: false,
            auth_opa_policy_engine: None,
        }
    }
}

impl ExperimentalConfig {
    /// Reads the block, and the federation that files of v0.8 to v0.12 hold in it.
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<(Self, FederationConfig)> {
        reader.tolerate_unknown();
        if reader.is_empty() {
            return Some(Default::default());
        }
        reader.ignored("allow_agentless_node_attestors", "every node has an agent");
        reader.ignored("use_rego_v1", "policies are read as Rego v1");
        let federation = federation::read_experimental(reader);
        let defaults = Self::default();
        let cache_reload_interval =
            interval(reader, "cache_reload_interval", "cache reload interval")
                .unwrap_or(defaults.cache_reload_interval);
        check_unused(reader, cache_reload_interval);
        config::refuse_named_pipe(reader, "named_pipe_name", "socket_path");
        let own = Self {
            cache_reload_interval,
            prune_events_older_than: interval(
                reader,
                "prune_events_older_than",
                "prune events older than",
            )
            .unwrap_or(defaults.prune_events_older_than),
            rotation_check_interval: interval(
                reader,
                "rotation_check_interval",
                "rotation check interval",
            )
            .unwrap_or(defaults.rotation_check_interval),
            agent_spiffe_id_as_selector: reader.flag("agent_spiffe_id_as_selector"),
            auth_opa_policy_engine: reader
                .block_with("auth_opa_policy_engine", |reader| {
                    Some(reader.block_with("local", read_policy_files))
                })
                .flatten(),
        };
        if own.auth_opa_policy_engine.is_some() {
            config::refuse_unsupported(reader, "auth_opa_policy_engine");
        }
        if reader.flag("require_pq_kem") {
            config::refuse_unsupported(reader, "require_pq_kem");
        }
        if own != defaults {
            reader.warn("Experimental features are in use; any release may change or remove them");
        }
        Some((own, federation))
    }
}

fn interval(reader: &mut Reader<'_>, key: &'static str, what: &str) -> Option<Duration> {
    reader.duration_saying(key, |_, error| format!("could not parse {what}: {error}"))
}

/// Checks what drives caches that this server does not need and SVIDs that it does not issue, and
/// warns of it.
fn check_unused(reader: &mut Reader<'_>, cache_reload_interval: Duration) {
    let full = "full_cache_reload_interval";
    if interval(reader, full, "full cache reload interval")
        .unwrap_or(Duration::from_hours(24))
        .le(&cache_reload_interval)
    {
        let sentence = "full_cache_reload_interval must be longer than cache_reload_interval";
        reader.reject(full, sentence, "write a longer one");
    }
    reader.flag("events_based_cache");
    check_event_timeout(reader);
    reader.parsed("wit_key_type", "use one of these", |text| {
        config::parse_key_type(text, &super::server::KEY_TYPES)
            .map_err(|error| format!("error parsing wit_key_type: {error}"))
    });
    reader.string("wit_issuer");
    for (key, why) in [
        ("events_based_cache", "entries and agents are always followed by events"),
        (full, "memory is read anew only where events were missed"),
        ("event_timeout", "events are in the order of their commits; none comes late"),
        ("wit_key_type", "this build issues no WIT-SVIDs"),
        ("wit_issuer", "this build issues no WIT-SVIDs"),
    ] {
        if reader.has(key) {
            reader.unserved(key, why);
        }
    }
    config::check_feature_flags(reader);
}

fn check_event_timeout(reader: &mut Reader<'_>) {
    let former = interval(reader, "sql_transaction_timeout", "sql transaction timeout");
    let timeout = interval(reader, "event_timeout", "event timeout");
    if former.is_some() {
        reader.deprecated(
            "sql_transaction_timeout is deprecated; use event_timeout instead",
            "sql_transaction_timeout",
        );
    }
    if former.is_some() && timeout.is_some() {
        reader.reject(
            "sql_transaction_timeout",
            "both experimental sql_transaction_timeout and event_timeout set, only set \
             event_timeout",
            "remove sql_transaction_timeout",
        );
    }
}

fn read_policy_files(reader: &mut Reader<'_>) -> Option<PolicyFiles> {
    let rego_path = reader.required("rego_path", "rego_path must be configured");
    let policy_data_path = reader.string("policy_data_path").map(PathBuf::from);
    Some(PolicyFiles { rego_path: rego_path?.into(), policy_data_path })
}
