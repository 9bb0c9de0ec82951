//! The block `agent` and the top level of the file.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use spire_core::config::{
    self, FromSection, HealthChecksConfig, PluginConfig, Reader, TelemetryConfig,
};
use spire_core::id::{SpiffeId, TrustDomain};
use spire_core::keys::KeyType;
use spire_core::limits::MAX_SOCKET_PATH_BYTES;
use spire_core::telemetry::log::LogSettings;
use zeroize::Zeroizing;

use super::bootstrap::{self, BundleSource, RebootstrapMode};
use super::experimental::ExperimentalConfig;
use crate::client::ServerAddress;

/// The kinds of keys that workloads' X.509-SVIDs may have.
const WORKLOAD_KEY_TYPES: [KeyType; 3] = [KeyType::Rsa2048, KeyType::EcP256, KeyType::EcP384];

const DEFAULT_SOCKET_PATH: &str = "/tmp/spire-agent/public/api.sock";
const DEFAULT_REBOOTSTRAP_DELAY: Duration = Duration::from_mins(10);
const DEFAULT_CACHE_SIZE: usize = 1000;
const SHORTEST_AVAILABILITY: Duration = Duration::from_hours(24);

/// Why keys about SDS do nothing.
const NO_SDS: &str = "this build does not serve SDS";

/// Largest file with a join token in bytes.
const MAX_TOKEN_BYTES: u64 = 4096;

/// Everything that the operator decided; fields are named as the keys of the file.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// The trust domain of this agent.
    pub trust_domain: TrustDomain,
    /// Where the server is.
    pub server: ServerAddress,
    /// Where the agent keeps its SVID and bundle; made where it is absent.
    pub data_dir: PathBuf,
    /// The socket of the Workload API.
    pub socket_path: PathBuf,
    /// The socket for operators and delegates, if there is to be one.
    pub admin_socket_path: Option<PathBuf>,
    /// Whose SVIDs are handed to brokers on the admin socket.
    pub authorized_delegates: Vec<SpiffeId>,
    /// Whether bundles are streamed to callers without identity.
    pub allow_unauthenticated_verifiers: bool,
    /// Claims that stay when a JWT-SVID of another trust domain is validated.
    pub allowed_foreign_jwt_claims: Vec<String>,
    /// The least remaining validity of SVIDs that are handed out.
    pub availability_target: Option<Duration>,
    /// Where the first bundle comes from.
    pub bundle_source: BundleSource,
    /// When a stored bundle is given up.
    pub rebootstrap_mode: RebootstrapMode,
    /// How long an unknown authority of the server must persist before that.
    pub rebootstrap_delay: Duration,
    /// The token with which the node attests, if it is to use one.
    pub join_token: Option<JoinToken>,
    /// Whether SDS is not served.
    pub disable_sds_api: bool,
    /// Whether the Workload API is not served.
    pub disable_workload_api: bool,
    /// The names that SDS answers with defaults.
    pub sds: SdsConfig,
    /// The log.
    pub log: LogSettings,
    /// Types of selectors that are logged when a workload gets no identity.
    pub log_selectors: Vec<String>,
    /// X.509-SVIDs kept for entries without subscribers.
    pub x509_svid_cache_max_size: usize,
    /// JWT-SVIDs kept.
    pub jwt_svid_cache_max_size: usize,
    /// The kind of keys of workloads' X.509-SVIDs.
    pub workload_x509_svid_key_type: KeyType,
    /// Whether entries, SVIDs and keys outlive a restart in `<data_dir>/cache.json`.
    pub persist_cache: bool,
    /// What may change in any release.
    pub experimental: ExperimentalConfig,
    /// Metrics.
    pub telemetry: TelemetryConfig,
    /// The HTTP listener for orchestrators.
    pub health_checks: HealthChecksConfig,
    /// The plugins as the file lists them; [`AgentPlugins`](super::AgentPlugins) sorts them.
    pub plugins: Vec<PluginConfig>,
}

/// A token that proves a node once. Shows nothing of itself.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken(Zeroizing<String>);

impl JoinToken {
    /// The token as it is sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JoinToken")
    }
}

/// `sds { … }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SdsConfig {
    /// Names the default X.509-SVID.
    pub default_svid_name: String,
    /// Names the own bundle.
    pub default_bundle_name: String,
    /// Names all bundles.
    pub default_all_bundles_name: String,
    /// Whether Envoy is told to check certificates by itself.
    pub disable_spiffe_cert_validation: bool,
}

impl Default for SdsConfig {
    fn default() -> Self {
        Self {
            default_svid_name: "default".to_owned(),
            default_bundle_name: "ROOTCA".to_owned(),
            default_all_bundles_name: "ALL".to_owned(),
            disable_spiffe_cert_validation: false,
        }
    }
}

impl FromSection for SdsConfig {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        reader.tolerate_unknown();
        let defaults = Self::default();
        let mut name = |key, default| reader.string(key).unwrap_or(default);
        Some(Self {
            default_svid_name: name("default_svid_name", defaults.default_svid_name),
            default_bundle_name: name("default_bundle_name", defaults.default_bundle_name),
            default_all_bundles_name: name(
                "default_all_bundles_name",
                defaults.default_all_bundles_name,
            ),
            disable_spiffe_cert_validation: reader.flag("disable_spiffe_cert_validation"),
        })
    }
}

impl AgentConfig {
    /// Reads the top level of a file.
    pub(super) fn read_file(reader: &mut Reader<'_>) -> Option<Self> {
        reader.refuse_unknown("top-level");
        let plugins = config::read_plugins(reader);
        if plugins.is_none() {
            reader.reject(
                "plugins",
                "plugins section must be configured",
                "add plugins { … } with a KeyManager, a NodeAttestor and a WorkloadAttestor",
            );
        }
        let agent = reader.block_or_empty("agent", Self::read_agent);
        let telemetry = config::read_telemetry(reader);
        let health_checks = reader.block("health_checks").unwrap_or_default();
        Some(Self { telemetry, health_checks, plugins: plugins?, ..agent? })
    }

    fn read_agent(reader: &mut Reader<'_>) -> Option<Self> {
        reader.refuse_unknown("agent");
        accept_former_keys(reader);
        let server = read_server(reader);
        let trust_domain = config::read_trust_domain(reader);
        let rebootstrap_mode = bootstrap::read_mode(reader);
        let bundle_source = bootstrap::read_source(reader, rebootstrap_mode);
        let rebootstrap_delay = reader.duration_saying("rebootstrap_delay", |_, error| {
            format!("error parsing rebootstrap delay duration: {error}")
        });
        let join_token = read_join_token(reader);
        let socket_path = read_socket_path(reader, "socket_path")
            .unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET_PATH));
        let admin_socket_path = read_socket_path(reader, "admin_socket_path");
        if let Some(admin) = &admin_socket_path {
            refuse_near(reader, "admin_socket_path", "admin", admin, &socket_path);
        }
        let experimental = reader
            .block_with("experimental", |reader| ExperimentalConfig::read(reader, &socket_path))
            .unwrap_or_default();
        let authorized_delegates = read_delegates(reader, trust_domain.as_ref());
        if !authorized_delegates.is_empty() {
            let why = "this build does not serve the Delegated Identity API";
            reader.unserved("authorized_delegates", why);
        }
        if reader.has("sds") {
            reader.unserved("sds", NO_SDS);
        }
        config::ignore_profiling(reader);
        let data_dir = reader.string("data_dir").unwrap_or_else(|| ".".to_owned());
        Some(Self {
            authorized_delegates,
            data_dir: data_dir.into(),
            socket_path,
            admin_socket_path,
            allow_unauthenticated_verifiers: reader.flag("allow_unauthenticated_verifiers"),
            allowed_foreign_jwt_claims: reader
                .strings("allowed_foreign_jwt_claims")
                .unwrap_or_default(),
            availability_target: read_availability_target(reader),
            rebootstrap_mode,
            rebootstrap_delay: rebootstrap_delay.unwrap_or(DEFAULT_REBOOTSTRAP_DELAY),
            join_token,
            disable_sds_api: reader.flag("disable_sds_api"),
            disable_workload_api: reader.flag("disable_workload_api"),
            sds: reader.block("sds").unwrap_or_default(),
            log: config::read_log(reader),
            log_selectors: reader.strings("log_selectors").unwrap_or_default(),
            x509_svid_cache_max_size: read_cache_size(reader, "x509_svid_cache_max_size"),
            jwt_svid_cache_max_size: read_cache_size(reader, "jwt_svid_cache_max_size"),
            workload_x509_svid_key_type: reader
                .parsed("workload_x509_svid_key_type", "use one of these", |text| {
                    config::parse_key_type(text, &WORKLOAD_KEY_TYPES)
                })
                .unwrap_or(KeyType::EcP256),
            persist_cache: reader.flag("persist_cache"),
            experimental,
            telemetry: TelemetryConfig::default(),
            health_checks: HealthChecksConfig::default(),
            plugins: Vec::new(),
            // Last: where they are missing, everything else has been read all the same.
            trust_domain: trust_domain?,
            server: server?,
            bundle_source: bundle_source?,
        })
    }
}

/// Keys of v0.7 to v1.14, each with one warning.
fn accept_former_keys(reader: &mut Reader<'_>) {
    reader.ignored("enable_sds", NO_SDS);
    reader.ignored("umask", "the umask of the process is kept, and tightened to 0027 if weaker");
    reader.ignored("retry_bootstrap", "bootstrapping is always tried again");
    reader.ignored("retry_rebootstrap", "bootstrapping is always tried again");
    reader.ignored("disable_reattest_to_renew", "agents that can attest again renew that way");
}

fn read_server(reader: &mut Reader<'_>) -> Option<ServerAddress> {
    let host = reader.required("server_address", "server_address must be configured");
    let port: Option<u16> = reader.integer("server_port").filter(|port| *port != 0);
    if port.is_none() && !reader.is_mistaken("server_port") {
        reader.reject("server_port", "server_port must be configured", "set server_port");
    }
    let host = host?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    Some(ServerAddress { host: bare.unwrap_or(&host).to_owned(), port: port? })
}

fn read_join_token(reader: &mut Reader<'_>) -> Option<JoinToken> {
    let token = reader.secret("join_token");
    let Some(path) = reader.string("join_token_file") else { return token.map(JoinToken) };
    if token.is_some() {
        let sentence = "only one of join_token or join_token_file can be specified, not both";
        reader.reject("join_token_file", sentence, "keep one of the two");
        return None;
    }
    let sentence = match read_token_file(Path::new(&path)) {
        Ok(token) if token.is_empty() => "join token file is empty".to_owned(),
        Ok(token) => return Some(JoinToken(token)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => format!(
            "unable to read join token file {path:?}: open {path}: no such file or directory"
        ),
        Err(error) => format!("unable to read join token file {path:?}: {error}"),
    };
    reader.reject("join_token_file", &sentence, "write the token into the file");
    None
}

fn read_token_file(path: &Path) -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    File::open(path)?.take(MAX_TOKEN_BYTES).read_to_string(&mut text)?;
    Ok(Zeroizing::new(text.trim().to_owned()))
}

fn read_socket_path(reader: &mut Reader<'_>, key: &'static str) -> Option<PathBuf> {
    let path = reader.string(key)?;
    if path.len() > MAX_SOCKET_PATH_BYTES {
        let length = path.len();
        let sentence = format!(
            "{key} has {length} bytes; a Unix socket's path has at most {MAX_SOCKET_PATH_BYTES}"
        );
        reader.reject(key, &sentence, "use a shorter path");
    }
    Some(path.into())
}

/// Refuses a socket in the folder of the Workload API, which anybody may enter, or below it.
pub(super) fn refuse_near(
    reader: &mut Reader<'_>,
    key: &'static str,
    what: &str,
    path: &Path,
    workload_socket: &Path,
) {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let (path, workload_socket) = (absolute(path), absolute(workload_socket));
    if workload_socket.parent().is_some_and(|folder| path.starts_with(folder)) {
        let sentence = format!(
            "{what} socket cannot be in the same directory or a subdirectory as that containing \
             the Workload API socket"
        );
        reader.reject(key, &sentence, "move it to a folder of its own");
    }
}

fn read_delegates(reader: &mut Reader<'_>, trust_domain: Option<&TrustDomain>) -> Vec<SpiffeId> {
    let mut ids = Vec::new();
    for text in reader.strings("authorized_delegates").unwrap_or_default() {
        let foreign = |id: &SpiffeId| {
            trust_domain
                .filter(|trust_domain| !id.is_member_of(trust_domain))
                .map(|own| format!("SPIFFE ID {text:?} is not a member of trust domain \"{own}\""))
        };
        let refusal = match SpiffeId::parse(&text) {
            Ok(id) => match foreign(&id) {
                Some(refusal) => refusal,
                None => {
                    ids.push(id);
                    continue;
                }
            },
            Err(error) => error.to_string(),
        };
        let sentence = format!("error validating authorized delegate: {refusal}");
        reader.reject("authorized_delegates", &sentence, "write an ID of the own trust domain");
    }
    ids
}

fn read_availability_target(reader: &mut Reader<'_>) -> Option<Duration> {
    let key = "availability_target";
    let target = reader
        .duration_saying(key, |_, error| format!("unable to parse availability_target: {error}"))?;
    if target < SHORTEST_AVAILABILITY {
        let sentence = "availability_target must be at least 24h0m0s";
        reader.reject(key, sentence, "write 24h or more, or remove it");
    }
    Some(target)
}

fn read_cache_size(reader: &mut Reader<'_>, key: &'static str) -> usize {
    let size: i64 = reader.integer(key).unwrap_or(0);
    if size < 0 {
        reader.reject(key, &format!("{key} should not be negative"), "write a positive number");
    }
    if size > 0 { usize::try_from(size).unwrap_or(usize::MAX) } else { DEFAULT_CACHE_SIZE }
}
