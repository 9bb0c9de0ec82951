//! `experimental { … }`: what may change in any release.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::SignedDuration;
use spire_core::config::{self, FromSection, Reader, duration};
use spire_core::id::SpiffeId;

use super::agent::refuse_near;

const SHORTEST_HIT_TIMEOUT: Duration = Duration::from_secs(5);
const LONGEST_HIT_TIMEOUT: Duration = Duration::from_secs(30);

/// Everything in the block; fields are named as its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExperimentalConfig {
    /// How often the server is asked what changed.
    pub sync_interval: Duration,
    /// How long the renewal of a JWT-SVID may take while the kept one is still valid.
    pub jwt_svid_cache_hit_timeout: Duration,
    /// Calls of workloads.
    pub ratelimit: RateLimitsConfig,
    /// The SPIFFE Broker API, if it is to be served.
    pub broker: Option<BrokerConfig>,
}

impl Default for ExperimentalConfig {
    fn default() -> Self {
        Self {
            sync_interval: Duration::from_secs(5),
            jwt_svid_cache_hit_timeout: LONGEST_HIT_TIMEOUT,
            ratelimit: RateLimitsConfig::default(),
            broker: None,
        }
    }
}

impl ExperimentalConfig {
    pub(super) fn read(reader: &mut Reader<'_>, workload_socket: &Path) -> Option<Self> {
        reader.tolerate_unknown();
        reader.ignored("retry_bootstrap", "bootstrapping is always tried again");
        reader.ignored("use_sync_authorized_entries", "it is always used");
        config::refuse_named_pipe(reader, "named_pipe_name", "socket_path");
        config::refuse_named_pipe(reader, "admin_named_pipe_name", "admin_socket_path");
        let defaults = Self::default();
        let own = Self {
            sync_interval: reader
                .duration_saying("sync_interval", |_, error| {
                    format!("could not parse synchronization interval: {error}")
                })
                .unwrap_or(defaults.sync_interval),
            jwt_svid_cache_hit_timeout: read_hit_timeout(reader)
                .unwrap_or(defaults.jwt_svid_cache_hit_timeout),
            ratelimit: reader.block("ratelimit").unwrap_or_default(),
            broker: reader
                .block_with("broker", |reader| BrokerConfig::read(reader, workload_socket)),
        };
        config::check_feature_flags(reader);
        if own.broker.is_some() {
            config::refuse_unsupported(reader, "broker");
        }
        if reader.flag("require_pq_kem") {
            config::refuse_unsupported(reader, "require_pq_kem");
        }
        if own != defaults {
            reader.warn("Experimental features are in use; any release may change or remove them");
        }
        Some(own)
    }
}

fn read_hit_timeout(reader: &mut Reader<'_>) -> Option<Duration> {
    let key = "jwt_svid_cache_hit_timeout";
    let timeout = reader.duration(key, key)?;
    let written = duration::format(SignedDuration::try_from(timeout).ok()?);
    let refusal = if timeout < SHORTEST_HIT_TIMEOUT {
        "must be greater than 5s"
    } else if timeout >= LONGEST_HIT_TIMEOUT {
        "must be less than 30s"
    } else {
        return Some(timeout);
    };
    reader.reject(key, &format!("{key} ({written}) {refusal}"), "write 5s to 29s, or remove it");
    None
}

/// `ratelimit { … }`: calls per second for each distinct set of selectors; 0 is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RateLimitsConfig {
    /// `FetchX509SVID`
    pub fetch_x509_svid: u32,
    /// `FetchJWTSVID`
    pub fetch_jwt_svid: u32,
    /// `FetchX509Bundles`
    pub fetch_x509_bundles: u32,
    /// `FetchJWTBundles`
    pub fetch_jwt_bundles: u32,
    /// `StreamSecrets`
    pub stream_secrets: u32,
    /// `FetchSecrets`
    pub fetch_secrets: u32,
}

impl FromSection for RateLimitsConfig {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        reader.refuse_unknown("ratelimit");
        let mut rate = |key: &'static str| {
            let rate: i64 = reader.integer(key).unwrap_or(0);
            if rate < 0 {
                let sentence = format!("experimental.ratelimit.{key} must not be negative");
                reader.reject(key, &sentence, "write 0 for no limit");
            }
            u32::try_from(rate).unwrap_or(u32::MAX)
        };
        Some(Self {
            fetch_x509_svid: rate("fetch_x509_svid"),
            fetch_jwt_svid: rate("fetch_jwt_svid"),
            fetch_x509_bundles: rate("fetch_x509_bundles"),
            fetch_jwt_bundles: rate("fetch_jwt_bundles"),
            stream_secrets: rate("stream_secrets"),
            fetch_secrets: rate("fetch_secrets"),
        })
    }
}

/// `broker { … }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerConfig {
    /// The Unix socket, if there is one.
    pub socket_path: Option<PathBuf>,
    /// The TCP address, if there is one.
    pub bind_address: Option<String>,
    /// Who may call.
    pub brokers: Vec<BrokerClient>,
}

/// One that may call the Broker API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerClient {
    /// Who it is.
    pub id: SpiffeId,
    /// What it may ask for.
    pub allowed_reference_types: Vec<AllowedReference>,
}

/// A kind of reference to a workload that a broker may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedReference {
    /// The type of the reference; `*` is any.
    pub type_url: String,
    /// Whether it may come by TCP.
    pub allow_over_tcp: bool,
}

impl BrokerConfig {
    fn read(reader: &mut Reader<'_>, workload_socket: &Path) -> Option<Self> {
        let socket_path = reader.string("socket_path").map(PathBuf::from);
        let bind_address = reader.string("bind_address");
        if socket_path.is_none() && bind_address.is_none() {
            reader.reject(
                "socket_path",
                "broker needs socket_path or bind_address",
                "set one of the two",
            );
        }
        if let Some(path) = &socket_path {
            refuse_near(reader, "socket_path", "broker", path, workload_socket);
        }
        Some(Self { socket_path, bind_address, brokers: reader.blocks("brokers") })
    }
}

impl FromSection for BrokerClient {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let text = reader.required("id", "broker id must be configured");
        let id = text.and_then(|text| {
            SpiffeId::parse(&text)
                .map_err(|error| {
                    let sentence = format!("could not parse broker ID {text:?}: {error}");
                    reader.reject("id", &sentence, "write spiffe://domain/path");
                })
                .ok()
        });
        let allowed_reference_types = reader.blocks("allowed_reference_types");
        Some(Self { id: id?, allowed_reference_types })
    }
}

impl FromSection for AllowedReference {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let type_url = reader.required("type_url", "type_url must be configured");
        let allow_over_tcp = reader.flag("allow_over_tcp");
        Some(Self { type_url: type_url?, allow_over_tcp })
    }
}
