//! Blocks and keys that the files of server and agent share: logs, telemetry, health, key types
//! and feature flags.

use std::path::PathBuf;

use super::reader::{FromSection, Reader};
use crate::id::{SpiffeId, TrustDomain};
use crate::keys::KeyType;
use crate::telemetry::log::LogSettings;

/// Feature flags that SPIRE knows.
const FEATURE_FLAGS: [&str; 2] = ["i_am_a_test_flag", "wit-svid"];

/// Reads `log_file`, `log_format`, `log_level` and `log_source_location`.
pub fn read_log(reader: &mut Reader<'_>) -> LogSettings {
    let level =
        reader.parsed("log_level", "use trace, debug, info, warn, error, fatal or panic", |text| {
            text.parse().map_err(|error| format!("could not start logger: {error}"))
        });
    let format = reader.parsed("log_format", "use text or json", |text| {
        text.parse().map_err(|error| format!("could not start logger: {error}"))
    });
    let defaults = LogSettings::default();
    LogSettings {
        level: level.unwrap_or(defaults.level),
        format: format.unwrap_or(defaults.format),
        file: reader.string("log_file").map(PathBuf::from),
        source_location: reader.flag("log_source_location"),
    }
}

/// Reads `trust_domain`, which must be there.
pub fn read_trust_domain(reader: &mut Reader<'_>) -> Option<TrustDomain> {
    let text = reader.required("trust_domain", "trust_domain must be configured")?;
    TrustDomain::parse(&text)
        .map_err(|error| {
            let sentence = format!("could not parse trust_domain {text:?}: {error}");
            reader.reject("trust_domain", &sentence, "write a name such as example.org");
        })
        .ok()
}

/// Accepts the `profiling_*` keys, which drive the profiler of Go's runtime, without effect.
pub fn ignore_profiling(reader: &mut Reader<'_>) {
    for key in ["profiling_port", "profiling_freq", "profiling_names"] {
        reader.know(key);
    }
    if reader.flag("profiling_enabled") {
        reader.warn("profiling_enabled has no effect: there is no Go runtime to profile");
    }
}

/// Checks `feature_flags`, of which this build has none that does anything.
pub fn check_feature_flags(reader: &mut Reader<'_>) {
    let flags = reader.strings("feature_flags").unwrap_or_default();
    let unknown: Vec<&str> =
        flags.iter().map(String::as_str).filter(|flag| !FEATURE_FLAGS.contains(flag)).collect();
    if !unknown.is_empty() {
        let sentence = format!(
            "error loading feature flags: unknown feature flag(s): [{}]",
            unknown.join(" ")
        );
        reader.reject("feature_flags", &sentence, "remove what is unknown");
    } else if !flags.is_empty() {
        reader.unserved("feature_flags", "this build issues no WIT-SVIDs");
    }
}

/// Refuses a key for what this build does not have and what would not be safe to leave out.
pub fn refuse_unsupported(reader: &mut Reader<'_>, key: &'static str) {
    reader.reject(key, &format!("{key} is not supported by this build"), "remove it");
}

/// Reads the block `telemetry`, and warns where it names a place for metrics.
pub fn read_telemetry(reader: &mut Reader<'_>) -> TelemetryConfig {
    let telemetry: TelemetryConfig = reader.block("telemetry").unwrap_or_default();
    if telemetry.has_sink() {
        reader.unserved("telemetry", "this build makes no metrics");
    }
    telemetry
}

/// Refuses a key that names a pipe of Windows.
pub fn refuse_named_pipe(reader: &mut Reader<'_>, key: &'static str, instead: &str) {
    if reader.string(key).is_some() {
        let sentence = format!(
            "invalid configuration: {key} is not supported in this platform; please use {instead} \
             instead"
        );
        reader.reject(key, &sentence, &format!("set {instead}"));
    }
}

/// Reads a key type out of those that are `allowed`.
///
/// # Errors
/// SPIRE's sentence, which lists them.
pub fn parse_key_type(text: &str, allowed: &[KeyType]) -> Result<KeyType, String> {
    let named = |kind: &&KeyType| key_type_name(**kind).eq_ignore_ascii_case(text);
    allowed.iter().find(named).copied().ok_or_else(|| {
        let names: Vec<&str> = allowed.iter().map(|kind| key_type_name(*kind)).collect();
        format!("key type {text:?} is unknown; must be one of [{}]", names.join(", "))
    })
}

fn key_type_name(kind: KeyType) -> &'static str {
    match kind {
        KeyType::Rsa2048 => "rsa-2048",
        KeyType::Rsa4096 => "rsa-4096",
        KeyType::EcP256 => "ec-p256",
        KeyType::EcP384 => "ec-p384",
        KeyType::EcP521 => "ec-p521",
        KeyType::OtherRsa => "rsa",
    }
}

/// `telemetry { … }`: where metrics go and how they are named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelemetryConfig {
    /// The endpoint that Prometheus asks.
    pub prometheus: Option<PrometheusConfig>,
    /// `host:port` of each DogStatsD.
    pub dog_statsd: Vec<String>,
    /// `host:port` of each StatsD.
    pub statsd: Vec<String>,
    /// Each M3.
    pub m3: Vec<M3Config>,
    /// Whether an hour of metrics is kept in memory for a dump.
    pub in_memory: bool,
    /// Replaces the service name before each metric.
    pub metric_prefix: Option<String>,
    /// Whether each metric has the label `trust_domain`.
    pub trust_domain_label: bool,
    /// Whether each metric has the label `host`.
    pub hostname_label: bool,
    /// Only metrics with one of these prefixes; all where empty.
    pub allowed_prefixes: Vec<String>,
    /// No metrics with one of these prefixes.
    pub blocked_prefixes: Vec<String>,
    /// Only these labels; all where empty.
    pub allowed_labels: Vec<String>,
    /// None of these labels.
    pub blocked_labels: Vec<String>,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            prometheus: None,
            dog_statsd: Vec::new(),
            statsd: Vec::new(),
            m3: Vec::new(),
            in_memory: false,
            metric_prefix: None,
            trust_domain_label: false,
            hostname_label: true,
            allowed_prefixes: Vec::new(),
            blocked_prefixes: Vec::new(),
            allowed_labels: Vec::new(),
            blocked_labels: Vec::new(),
        }
    }
}

impl TelemetryConfig {
    /// Whether metrics are to go anywhere.
    fn has_sink(&self) -> bool {
        self.prometheus.is_some()
            || !self.dog_statsd.is_empty()
            || !self.statsd.is_empty()
            || !self.m3.is_empty()
            || self.in_memory
    }
}

impl FromSection for TelemetryConfig {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        reader.tolerate_unknown();
        let address = |sink: Sink| sink.address;
        let list = |reader: &mut Reader<'_>, key| reader.strings(key).unwrap_or_default();
        Some(Self {
            prometheus: reader.block("Prometheus"),
            dog_statsd: sinks(reader, "DogStatsd").into_iter().map(address).collect(),
            statsd: sinks(reader, "Statsd").into_iter().map(address).collect(),
            m3: reader.blocks("M3"),
            in_memory: reader.block_with("InMem", read_in_memory).unwrap_or(false),
            metric_prefix: reader.string("MetricPrefix"),
            trust_domain_label: reader.flag("EnableTrustDomainLabel"),
            hostname_label: reader.boolean("EnableHostnameLabel").unwrap_or(true),
            allowed_prefixes: list(reader, "AllowedPrefixes"),
            blocked_prefixes: list(reader, "BlockedPrefixes"),
            allowed_labels: list(reader, "AllowedLabels"),
            blocked_labels: list(reader, "BlockedLabels"),
        })
    }
}

/// `InMem {}` turns the sink on; up to 1.5 a key inside it could turn it off.
fn read_in_memory(reader: &mut Reader<'_>) -> Option<bool> {
    reader.refuse_unknown("InMem");
    let enabled = reader.boolean("enabled");
    if enabled.is_some() {
        reader.deprecated(
            "enabled is deprecated; write the block InMem {} to turn the sink on, leave it out to \
             turn it off",
            "enabled",
        );
    }
    Some(enabled.unwrap_or(true))
}

struct Sink {
    address: String,
}

fn sinks(reader: &mut Reader<'_>, key: &'static str) -> Vec<Sink> {
    reader.blocks_with(key, |reader| {
        reader.refuse_unknown(key);
        Some(Sink { address: reader.string("address").unwrap_or_default() })
    })
}

/// One M3 to which metrics are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct M3Config {
    /// `host:port`.
    pub address: String,
    /// The value of the tag `env`.
    pub env: String,
}

impl FromSection for M3Config {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        reader.refuse_unknown("M3");
        Some(Self {
            address: reader.string("address").unwrap_or_default(),
            env: reader.string("env").unwrap_or_default(),
        })
    }
}

/// The endpoint that Prometheus asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrometheusConfig {
    /// Where it listens; `localhost` unless set.
    pub host: String,
    /// Its port; 0 takes any free one.
    pub port: u16,
    /// TLS, if it is to be used.
    pub tls: Option<PrometheusTls>,
}

impl FromSection for PrometheusConfig {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        reader.refuse_unknown("Prometheus");
        Some(Self {
            host: reader.string("host").unwrap_or_else(|| "localhost".to_owned()),
            port: reader.integer("port").unwrap_or(0),
            tls: reader.block("tls"),
        })
    }
}

/// TLS of the endpoint for Prometheus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrometheusTls {
    /// What it shows.
    pub certificate: CertificateSource,
    /// Who may ask.
    pub clients: ClientCheck,
}

/// Where a certificate with its key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateSource {
    /// PEM files.
    Files {
        /// The certificate and its chain.
        certificate: PathBuf,
        /// The private key.
        key: PathBuf,
    },
    /// The SVID of this very process.
    OwnSvid,
}

/// Which clients an endpoint takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCheck {
    /// Any client.
    None,
    /// Those with a certificate of an authority in this PEM file.
    Authorities(PathBuf),
    /// Those with one of these SPIFFE IDs.
    SpiffeIds(Vec<SpiffeId>),
}

impl FromSection for PrometheusTls {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let certificate = reader.string("cert_file").map(PathBuf::from);
        let key = reader.string("key_file").map(PathBuf::from);
        let own_svid = reader.flag("use_spire_svid");
        let authorities = reader.string("client_ca_file").map(PathBuf::from);
        let mut ids = Vec::new();
        for text in reader.strings("authorized_spiffe_ids").unwrap_or_default() {
            match SpiffeId::parse(&text) {
                Ok(id) => ids.push(id),
                Err(error) => {
                    let sentence =
                        format!("could not parse authorized SPIFFE ID {text:?}: {error}");
                    reader.reject("authorized_spiffe_ids", &sentence, "write spiffe://domain/path");
                }
            }
        }
        let certificate = match (own_svid, certificate, key) {
            (true, None, None) => Some(CertificateSource::OwnSvid),
            (false, Some(certificate), Some(key)) => {
                Some(CertificateSource::Files { certificate, key })
            }
            (true, ..) => {
                reader.reject(
                    "use_spire_svid",
                    "cert_file and key_file cannot be configured when use_spire_svid is enabled",
                    "keep the files or use_spire_svid",
                );
                None
            }
            (false, ..) => {
                reader.reject(
                    "cert_file",
                    "cert_file and key_file must both be configured unless use_spire_svid is \
                     enabled",
                    "set both, or use_spire_svid = true",
                );
                None
            }
        };
        let clients = match (authorities, ids.is_empty()) {
            (None, true) => Some(ClientCheck::None),
            (None, false) => Some(ClientCheck::SpiffeIds(ids)),
            (Some(file), true) => Some(ClientCheck::Authorities(file)),
            (Some(_), false) => {
                reader.reject(
                    "client_ca_file",
                    "client_ca_file cannot be configured with authorized_spiffe_ids",
                    "keep one of the two",
                );
                None
            }
        };
        Some(Self { certificate: certificate?, clients: clients? })
    }
}

/// `health_checks { … }`: the HTTP listener that tells orchestrators how the process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthChecksConfig {
    /// Whether it listens at all.
    pub listener_enabled: bool,
    /// Where it listens.
    pub bind_address: String,
    /// Its port as written: a bad one costs the listener, not the process.
    pub bind_port: String,
    /// The path of readiness.
    pub ready_path: String,
    /// The path of liveness.
    pub live_path: String,
}

impl Default for HealthChecksConfig {
    fn default() -> Self {
        Self {
            listener_enabled: false,
            bind_address: "localhost".to_owned(),
            bind_port: "80".to_owned(),
            ready_path: "/ready".to_owned(),
            live_path: "/live".to_owned(),
        }
    }
}

impl FromSection for HealthChecksConfig {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        reader.refuse_unknown("health check");
        let defaults = Self::default();
        Some(Self {
            listener_enabled: reader.flag("listener_enabled"),
            bind_address: reader.string("bind_address").unwrap_or(defaults.bind_address),
            bind_port: reader.string("bind_port").unwrap_or(defaults.bind_port),
            ready_path: reader.string("ready_path").unwrap_or(defaults.ready_path),
            live_path: reader.string("live_path").unwrap_or(defaults.live_path),
        })
    }
}
