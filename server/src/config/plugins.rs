//! `plugins { … }`: which plugin plays which part in a server.

use std::path::PathBuf;

use spire_core::config::{self, ConfigErrors, FromSection, Mistake, PluginConfig, Reader};
use spire_core::node::JOIN_TOKEN;

use crate::store::{self, ConnectionString, DatabaseKind, SettingsError};

/// The types of plugins that may be there any number of times.
const ANY_NUMBER: [&str; 4] = ["NodeAttestor", "Notifier", "BundlePublisher", "CredentialComposer"];

/// The plugins of a server by their part, each as often as it may be there.
#[derive(Debug, Clone)]
pub struct ServerPlugins {
    /// `DataStore "sql"`.
    pub data_store: store::Settings,
    /// The one that keeps the server's keys.
    pub key_manager: PluginConfig,
    /// Those that prove nodes.
    pub node_attestors: Vec<PluginConfig>,
    /// The one that signs the server's CA, if any.
    pub upstream_authority: Option<PluginConfig>,
    /// Those that are told of new roots.
    pub notifiers: Vec<PluginConfig>,
    /// Those that publish the bundle.
    pub bundle_publishers: Vec<PluginConfig>,
    /// Those that change what is signed, in their order.
    pub credential_composers: Vec<PluginConfig>,
}

/// Reads the block and translates the types of v0.7 to v0.12.
pub(super) fn read(reader: &mut Reader<'_>) -> Option<Vec<PluginConfig>> {
    let Some(mut plugins) = config::read_plugins(reader) else {
        reader.reject(
            "plugins",
            "plugins section must be configured",
            "add plugins { … } with a DataStore, a KeyManager and a NodeAttestor",
        );
        return None;
    };
    let is_kind = |kind: &'static str| move |plugin: &PluginConfig| plugin.kind == kind;
    if plugins.iter().any(is_kind("UpstreamCA")) {
        if plugins.iter().any(is_kind("UpstreamAuthority")) {
            reader.reject(
                "plugins",
                "UpstreamCA is the former name of UpstreamAuthority; both are configured",
                "keep UpstreamAuthority alone",
            );
        }
        for plugin in plugins.iter_mut().filter(|plugin| plugin.kind == "UpstreamCA") {
            let sentence = format!(
                "UpstreamCA {:?} is deprecated; use UpstreamAuthority {:?}, whose certificates \
                 live for ca_ttl",
                plugin.name, plugin.name
            );
            reader.deprecated(sentence, "plugins");
            plugin.kind = "UpstreamAuthority".to_owned();
            plugin.section.remove("ttl");
        }
    }
    let is_resolver = is_kind("NodeResolver");
    let resolvers: Vec<_> = plugins.extract_if(.., |plugin| is_resolver(plugin)).collect();
    for resolver in &resolvers {
        let name = &resolver.name;
        let sentence = match name.as_str() {
            "noop" => "NodeResolver \"noop\" has no effect: none is needed any more".to_owned(),
            name => format!(
                "NodeResolver {name:?} is deprecated; NodeAttestor {name:?} finds the selectors, \
                 and is lent its settings"
            ),
        };
        reader.deprecated(sentence, "plugins");
        let is_its_own =
            |plugin: &&mut PluginConfig| plugin.kind == "NodeAttestor" && plugin.name == *name;
        if let Some(attestor) = plugins.iter_mut().find(is_its_own) {
            for block in attestor.section.lend(&resolver.section) {
                reader.warn(format!(
                    "NodeResolver {name:?} has {block}, which NodeAttestor {name:?} has not: it is \
                     left out, since the attestor decides who may attest"
                ));
            }
        }
    }
    Some(plugins)
}

impl ServerPlugins {
    /// Gives each plugin its part.
    ///
    /// # Errors
    /// [`ConfigErrors`]: what is missing, what is there too often, and what no server knows.
    pub fn assign(plugins: &[PluginConfig]) -> Result<Self, ConfigErrors> {
        let mut mistakes = Vec::new();
        let of_kind = |kind: &str| -> Vec<PluginConfig> {
            let enabled = plugins.iter().filter(|plugin| plugin.enabled && plugin.kind == kind);
            enabled.cloned().collect()
        };
        for plugin in plugins {
            mistakes.extend(refusal(plugin));
        }
        let mut key_managers = of_kind("KeyManager");
        if key_managers.len() != 1 {
            mistakes.push(miscounted("KeyManager", "exactly 1", key_managers.len()));
        }
        let mut upstream_authorities = of_kind("UpstreamAuthority");
        if upstream_authorities.len() > 1 {
            let count = upstream_authorities.len();
            mistakes.push(miscounted("UpstreamAuthority", "at most 1", count));
        }
        let data_store = match of_kind("DataStore").as_slice() {
            [] => Err(vec![
                Mistake::new("expecting a DataStore plugin")
                    .path("plugins")
                    .remedy("add DataStore \"sql\" { plugin_data { … } }"),
            ]),
            [data_store] => read_data_store(data_store),
            _ => Err(vec![
                Mistake::new("only one DataStore plugin is allowed")
                    .path("plugins")
                    .remedy("keep one of them"),
            ]),
        };
        match (data_store, key_managers.pop()) {
            (Ok(data_store), Some(key_manager)) if mistakes.is_empty() => Ok(Self {
                data_store,
                key_manager,
                node_attestors: of_kind("NodeAttestor"),
                upstream_authority: upstream_authorities.pop(),
                notifiers: of_kind("Notifier"),
                bundle_publishers: of_kind("BundlePublisher"),
                credential_composers: of_kind("CredentialComposer"),
            }),
            (data_store, _) => {
                mistakes.extend(data_store.err().unwrap_or_default());
                Err(ConfigErrors(mistakes))
            }
        }
    }
}

/// Why a server cannot have this plugin at all.
fn refusal(plugin: &PluginConfig) -> Option<Mistake> {
    let kind = plugin.kind.as_str();
    let external = plugin.plugin_cmd.is_some();
    let known = ANY_NUMBER.contains(&kind)
        || ["DataStore", "KeyManager", "UpstreamAuthority"].contains(&kind);
    let sentence = if !known {
        format!("unsupported plugin type {kind:?}")
    } else if kind == "DataStore" && (external || plugin.name != "sql") {
        "pluggability for the DataStore is deprecated; only the built-in \"sql\" plugin is supported"
            .to_owned()
    } else if kind == "NodeAttestor" && plugin.name == JOIN_TOKEN && external {
        "the built-in join_token node attestor cannot be overridden by an external plugin"
            .to_owned()
    } else {
        return None;
    };
    let path = format!("plugins.{kind}[{:?}]", plugin.name);
    Some(Mistake::new(sentence).path(path))
}

fn miscounted(kind: &str, expected: &str, count: usize) -> Mistake {
    let sentence = format!(
        "plugin type {kind:?} constraint not satisfied: expected {expected} but got {count}"
    );
    Mistake::new(sentence).path("plugins")
}

fn read_data_store(plugin: &PluginConfig) -> Result<store::Settings, Vec<Mistake>> {
    let section = plugin.settings().map_err(|error| vec![Mistake::new(error.to_string())])?;
    let settings = section.decode::<DataStore>().map_err(|errors| errors.0)?;
    Ok(settings.0)
}

struct DataStore(store::Settings);

impl FromSection for DataStore {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        reader.tolerate_unknown();
        let kind = if reader.is_block("database_type") {
            // `database_type "aws_postgres" { … }`
            let named = reader.labelled("database_type", |label, _| Some(label.to_owned()));
            named.into_iter().next().unwrap_or_default()
        } else {
            reader.required("database_type", "datastore-sql: database_type must be set")?
        };
        let connection_string = reader.secret("connection_string").unwrap_or_default();
        let settings = store::Settings::new(&kind, &connection_string);
        let ro_connection_string = reader.secret("ro_connection_string");
        let tls = store::TlsFiles {
            root_ca_path: reader.string("root_ca_path").map(PathBuf::from),
            client_cert_path: reader.string("client_cert_path").map(PathBuf::from),
            client_key_path: reader.string("client_key_path").map(PathBuf::from),
        };
        let mut pool = store::PoolSettings {
            max_lifetime: reader.duration("conn_max_lifetime", "conn_max_lifetime"),
            ..store::PoolSettings::default()
        };
        if let Some(most) = reader.integer("max_open_conns") {
            // 0 means no limit, as for SPIRE.
            pool.max_open = if most == 0 { u32::MAX } else { most };
        }
        reader.ignored("max_idle_conns", "connections that nobody uses are closed after 30s");
        reader.ignored("log_sql", "statements are not logged");
        let disable_migration = reader.flag("disable_migration");
        let checked = settings.and_then(|settings| {
            let replica = ro_connection_string.filter(|_| settings.kind != DatabaseKind::Sqlite);
            store::Settings {
                ro_connection_string: replica.and_then(|text| ConnectionString::new(&text)),
                tls,
                pool,
                disable_migration,
                ..settings
            }
            .checked()
        });
        checked
            .map(Self)
            .map_err(|error| {
                let key = match error {
                    SettingsError::UnknownKind(_) => "database_type",
                    SettingsError::ConnectionString { key, .. } => key,
                    SettingsError::NoConnectionString | SettingsError::MySql(_) => {
                        "connection_string"
                    }
                };
                reader.reject(key, &format!("datastore-sql: {error}"), remedy(&kind));
            })
            .ok()
    }
}

/// What to write for a kind of database.
fn remedy(kind: &str) -> &'static str {
    match kind {
        "postgres" => {
            "write connection_string = \"host=<host> user=<user> password=<password> dbname=<name>\""
        }
        "mysql" => {
            "write connection_string = \"<user>:<password>@tcp(<host>:3306)/<name>?parseTime=true\""
        }
        "aws_postgres" | "aws_mysql" => {
            "tokens of IAM are not supported; write database_type = \"postgres\" or \"mysql\", and a \
             user with a password in connection_string"
        }
        _ => "write database_type = \"sqlite3\" and connection_string = \"<file>\"",
    }
}
