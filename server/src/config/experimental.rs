//! `experimental { … }`: what may change in any release, and federation as it was written there
//! up to v0.12.

use std::path::PathBuf;
use std::time::Duration;

use spire_core::config::{self, Reader};
use spire_core::keys::KeyType;

use super::federation::{self, FederationConfig};

/// Everything in the block; fields are named as its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExperimentalConfig {
    /// How often what agents may serve is looked at again.
    pub cache_reload_interval: Duration,
    /// Whether only what changed is read then.
    pub events_based_cache: bool,
    /// How often everything is read all the same.
    pub full_cache_reload_interval: Duration,
    /// How long changes stay in the change log.
    pub prune_events_older_than: Duration,
    /// How long a change that was skipped is waited for.
    pub event_timeout: Duration,
    /// How often it is looked whether an authority is due to be prepared or activated. A key that
    /// SPIRE does not have.
    pub rotation_check_interval: Duration,
    /// Whether each agent gets the selector `spiffe_id:<its ID>`.
    pub agent_spiffe_id_as_selector: bool,
    /// A policy of the operator's own, in Rego.
    pub auth_opa_policy_engine: Option<PolicyFiles>,
    /// The kind of keys that sign WIT-SVIDs; that of the CA where absent.
    pub wit_key_type: Option<KeyType>,
    /// The `iss` of WIT-SVIDs.
    pub wit_issuer: Option<String>,
    /// Features that are on.
    pub feature_flags: Vec<String>,
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
            events_based_cache: false,
            full_cache_reload_interval: Duration::from_hours(24),
            prune_events_older_than: Duration::from_hours(12),
            event_timeout: Duration::from_mins(15),
            rotation_check_interval: Duration::from_secs(10),
            agent_spiffe_id_as_selector: false,
            auth_opa_policy_engine: None,
            wit_key_type: None,
            wit_issuer: None,
            feature_flags: Vec::new(),
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
        let full_cache_reload_interval =
            interval(reader, "full_cache_reload_interval", "full cache reload interval")
                .unwrap_or(defaults.full_cache_reload_interval);
        if full_cache_reload_interval <= cache_reload_interval {
            reader.reject(
                "full_cache_reload_interval",
                "full_cache_reload_interval must be longer than cache_reload_interval",
                "write a longer one",
            );
        }
        config::refuse_named_pipe(reader, "named_pipe_name", "socket_path");
        let own = Self {
            cache_reload_interval,
            events_based_cache: reader.flag("events_based_cache"),
            full_cache_reload_interval,
            prune_events_older_than: interval(
                reader,
                "prune_events_older_than",
                "prune events older than",
            )
            .unwrap_or(defaults.prune_events_older_than),
            event_timeout: read_event_timeout(reader).unwrap_or(defaults.event_timeout),
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
            wit_key_type: reader.parsed("wit_key_type", "use one of these", |text| {
                config::parse_key_type(text, &super::server::KEY_TYPES)
                    .map_err(|error| format!("error parsing wit_key_type: {error}"))
            }),
            wit_issuer: reader.string("wit_issuer"),
            feature_flags: config::read_feature_flags(reader),
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

fn read_event_timeout(reader: &mut Reader<'_>) -> Option<Duration> {
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
    timeout.or(former)
}

fn read_policy_files(reader: &mut Reader<'_>) -> Option<PolicyFiles> {
    let rego_path = reader.required("rego_path", "rego_path must be configured");
    let policy_data_path = reader.string("policy_data_path").map(PathBuf::from);
    Some(PolicyFiles { rego_path: rego_path?.into(), policy_data_path })
}
