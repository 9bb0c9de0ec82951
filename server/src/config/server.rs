//! The block `server` and the top level of the file.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use spire_core::config::{self, HealthChecksConfig, PluginConfig, Reader, TelemetryConfig};
use spire_core::id::{SpiffeId, TrustDomain};
use spire_core::keys::KeyType;
use spire_core::limits::MAX_SOCKET_PATH_BYTES;
use spire_core::svid::x509::Subject;
use spire_core::telemetry::log::LogSettings;

use super::experimental::ExperimentalConfig;
use super::federation::FederationConfig;
use super::{legacy, plugins, ttl};
use crate::rate_limit::Switches;

/// The kinds of keys that an authority may have.
pub(super) const KEY_TYPES: [KeyType; 4] =
    [KeyType::Rsa2048, KeyType::Rsa4096, KeyType::EcP256, KeyType::EcP384];

const DEFAULT_SOCKET_PATH: &str = "/tmp/spire-server/private/api.sock";
const DEFAULT_CA_TTL: Duration = Duration::from_hours(24);
const DEFAULT_X509_SVID_TTL: Duration = Duration::from_hours(1);
const DEFAULT_JWT_SVID_TTL: Duration = Duration::from_mins(5);
const DEFAULT_PRUNE_BATCH: u32 = 1000;

/// Everything that the operator decided; fields are named as the keys of the file.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// The trust domain that is served.
    pub trust_domain: TrustDomain,
    /// Where the server may keep files; made where it is absent.
    pub data_dir: PathBuf,
    /// An IP address without brackets, or a name that is looked up at start.
    pub bind_address: String,
    /// The TCP port.
    pub bind_port: u16,
    /// The admin socket.
    pub socket_path: PathBuf,
    /// Who is an admin by its SPIFFE ID alone, whatever its trust domain.
    pub admin_ids: Vec<SpiffeId>,
    /// The log.
    pub log: LogSettings,
    /// Whether each operation leaves a line for auditors.
    pub audit_log_enabled: bool,
    /// The kind of keys of X.509 authorities and of the server's own SVID.
    pub ca_key_type: KeyType,
    /// The kind of keys that sign JWT-SVIDs.
    pub jwt_key_type: KeyType,
    /// The subject of X.509 authorities.
    pub ca_subject: Subject,
    /// Lifetime of X.509 authorities and of JWT keys.
    pub ca_ttl: Duration,
    /// Lifetime of agents' SVIDs.
    pub agent_ttl: Duration,
    /// Lifetime of X.509-SVIDs whose entry says nothing.
    pub default_x509_svid_ttl: Duration,
    /// Lifetime of JWT-SVIDs whose entry says nothing.
    pub default_jwt_svid_ttl: Duration,
    /// Whether JWT-SVIDs are refused.
    pub disable_jwt_svids: bool,
    /// The `iss` of JWT-SVIDs; without it they have none.
    pub jwt_issuer: Option<String>,
    /// How long ago an agent's SVID must have expired until the agent is deleted; `None` keeps it.
    pub prune_attested_nodes_expired_for: Option<Duration>,
    /// Agents that one transaction of that pruning deletes.
    pub prune_attested_nodes_batch_size: u32,
    /// Whether that pruning takes agents that cannot attest again.
    pub prune_tofu_nodes: bool,
    /// Whose PROXY header is believed.
    pub proxy_protocol_trusted_cidrs: Vec<IpNet>,
    /// Which limits are on.
    pub ratelimit: Switches,
    /// Other trust domains.
    pub federation: FederationConfig,
    /// What may change in any release.
    pub experimental: ExperimentalConfig,
    /// Metrics.
    pub telemetry: TelemetryConfig,
    /// The HTTP listener for orchestrators.
    pub health_checks: HealthChecksConfig,
    /// The plugins as the file lists them; [`ServerPlugins`](super::ServerPlugins) sorts them.
    pub plugins: Vec<PluginConfig>,
}

impl ServerConfig {
    /// Reads the top level of a file.
    pub(super) fn read_file(reader: &mut Reader<'_>) -> Option<Self> {
        reader.refuse_unknown("top-level");
        let server = reader.block_or_empty("server", Self::read_server);
        let plugins = plugins::read(reader);
        let telemetry = config::read_telemetry(reader);
        let health_checks = reader.block("health_checks").unwrap_or_default();
        Some(Self { telemetry, health_checks, plugins: plugins?, ..server? })
    }

    fn read_server(reader: &mut Reader<'_>) -> Option<Self> {
        reader.refuse_unknown("server");
        legacy::accept(reader);
        let trust_domain = config::read_trust_domain(reader);
        let data_dir = reader.required("data_dir", "data_dir must be configured");

        let ca_key_type = read_key_type(reader, "ca_key_type").unwrap_or(KeyType::EcP256);
        let ca_ttl = reader.duration("ca_ttl", "default CA ttl").unwrap_or(DEFAULT_CA_TTL);
        let x509_svid_ttl = reader.duration("default_x509_svid_ttl", "default X509 SVID ttl");
        let default_x509_svid_ttl = x509_svid_ttl.unwrap_or(DEFAULT_X509_SVID_TTL);
        let jwt_svid_ttl = reader.duration("default_jwt_svid_ttl", "default JWT SVID ttl");
        let default_jwt_svid_ttl = jwt_svid_ttl.unwrap_or(DEFAULT_JWT_SVID_TTL);
        let agent_ttl = reader.duration("agent_ttl", "agent ttl");
        ttl::warn_of_inverted(reader, ca_ttl, "default_x509_svid_ttl", default_x509_svid_ttl);
        ttl::warn_of_inverted(reader, ca_ttl, "default_jwt_svid_ttl", default_jwt_svid_ttl);
        if let Some(agent_ttl) = agent_ttl {
            ttl::warn_of_inverted(reader, ca_ttl, "agent_ttl", agent_ttl);
        }

        let federation: FederationConfig = reader.block("federation").unwrap_or_default();
        let experimental =
            reader.block_or_empty("experimental", |reader| ExperimentalConfig::read(reader));
        let (experimental, former_federation) = experimental.unwrap_or_default();
        let federation = federation.or(former_federation);
        if federation != FederationConfig::default() {
            reader.unserved(
                "federation",
                "this build publishes no bundle and fetches none; hand bundles over by \
                 `spire-server bundle set`",
            );
        }
        config::ignore_profiling(reader);
        // What memory holds of agents follows each change: it is as fresh as any bound could ask.
        reader.duration("max_attested_node_info_staleness", "max attested node staleness");
        Some(Self {
            data_dir: data_dir.unwrap_or_default().into(),
            bind_address: read_bind_address(reader),
            bind_port: reader.integer("bind_port").filter(|port| *port != 0).unwrap_or(8081),
            socket_path: read_socket_path(reader),
            admin_ids: read_admin_ids(reader),
            log: config::read_log(reader),
            audit_log_enabled: reader.flag("audit_log_enabled"),
            ca_key_type,
            jwt_key_type: read_key_type(reader, "jwt_key_type").unwrap_or(ca_key_type),
            ca_subject: read_ca_subject(reader),
            ca_ttl,
            agent_ttl: agent_ttl.unwrap_or(default_x509_svid_ttl),
            default_x509_svid_ttl,
            default_jwt_svid_ttl,
            disable_jwt_svids: reader.flag("disable_jwt_svids"),
            jwt_issuer: reader.string("jwt_issuer"),
            prune_attested_nodes_expired_for: reader
                .duration_saying("prune_attested_nodes_expired_for", |_, error| {
                    format!("could not parse prune_attested_nodes_expired_for: {error}")
                }),
            prune_attested_nodes_batch_size: read_prune_batch_size(reader),
            prune_tofu_nodes: reader.flag("prune_tofu_nodes"),
            proxy_protocol_trusted_cidrs: read_trusted_cidrs(reader),
            ratelimit: reader.block_with("ratelimit", read_rate_limits).unwrap_or_default(),
            federation,
            experimental,
            telemetry: TelemetryConfig::default(),
            health_checks: HealthChecksConfig::default(),
            plugins: Vec::new(),
            // Last: where it is missing, everything else has been read all the same.
            trust_domain: trust_domain?,
        })
    }
}

fn read_key_type(reader: &mut Reader<'_>, key: &'static str) -> Option<KeyType> {
    reader.parsed(key, "use one of these", |text| {
        config::parse_key_type(text, &KEY_TYPES)
            .map_err(|error| format!("error parsing {key}: {error}"))
    })
}

fn read_bind_address(reader: &mut Reader<'_>) -> String {
    let address = reader.string("bind_address").unwrap_or_else(|| "0.0.0.0".to_owned());
    let bare = address.strip_prefix('[').and_then(|address| address.strip_suffix(']'));
    bare.map_or(address.clone(), str::to_owned)
}

fn read_socket_path(reader: &mut Reader<'_>) -> PathBuf {
    let path = reader.string("socket_path").unwrap_or_else(|| DEFAULT_SOCKET_PATH.to_owned());
    if path.len() > MAX_SOCKET_PATH_BYTES {
        let sentence = format!(
            "socket_path has {} bytes; a Unix socket's path has at most {MAX_SOCKET_PATH_BYTES}",
            path.len()
        );
        reader.reject("socket_path", &sentence, "use a shorter path");
    }
    path.into()
}

fn read_admin_ids(reader: &mut Reader<'_>) -> Vec<SpiffeId> {
    let mut ids = Vec::new();
    for text in reader.strings("admin_ids").unwrap_or_default() {
        match SpiffeId::parse(&text) {
            Ok(id) => ids.push(id),
            Err(error) => {
                let sentence = format!("could not parse admin ID {text:?}: {error}");
                reader.reject("admin_ids", &sentence, "write spiffe://domain/path");
            }
        }
    }
    ids
}

fn read_ca_subject(reader: &mut Reader<'_>) -> Subject {
    let read = |reader: &mut Reader<'_>| {
        reader.refuse_unknown("ca_subject");
        reader.renamed("CommonName", "common_name");
        let subject = Subject {
            country: reader.strings("country").unwrap_or_default(),
            organization: reader.strings("organization").unwrap_or_default(),
            common_name: reader.string("common_name"),
            ..Subject::default()
        };
        if subject == Subject::default() {
            reader.warn(
                "ca_subject configurable is empty; the default subject C=US, O=SPIFFE is used",
            );
            return Some(default_ca_subject());
        }
        Some(subject)
    };
    reader.block_with("ca_subject", read).unwrap_or_else(default_ca_subject)
}

fn default_ca_subject() -> Subject {
    Subject {
        country: vec!["US".to_owned()],
        organization: vec!["SPIFFE".to_owned()],
        ..Subject::default()
    }
}

/// A negative size is no error, since SPIRE takes it.
fn read_prune_batch_size(reader: &mut Reader<'_>) -> u32 {
    let key = "prune_attested_nodes_batch_size";
    let size: i64 = reader.integer(key).unwrap_or(0);
    if size < 0 {
        reader.warn(format!("{key} is negative; {DEFAULT_PRUNE_BATCH} is used"));
    }
    if size > 0 { u32::try_from(size).unwrap_or(u32::MAX) } else { DEFAULT_PRUNE_BATCH }
}

fn read_trusted_cidrs(reader: &mut Reader<'_>) -> Vec<IpNet> {
    let key = "proxy_protocol_trusted_cidrs";
    let mut ranges = Vec::new();
    for text in reader.strings(key).unwrap_or_default() {
        match text.parse() {
            Ok(range) => ranges.push(range),
            Err(_) => {
                let sentence =
                    format!("invalid {key} value {text:?}: invalid CIDR address: {text}");
                reader.reject(key, &sentence, "write a range such as 10.0.0.0/8");
            }
        }
    }
    ranges
}

fn read_rate_limits(reader: &mut Reader<'_>) -> Option<Switches> {
    reader.refuse_unknown("ratelimit");
    let defaults = Switches::default();
    Some(Switches {
        attestation: reader.boolean("attestation").unwrap_or(defaults.attestation),
        signing: reader.boolean("signing").unwrap_or(defaults.signing),
    })
}
