//! Plugins of a file, and what `validate` says of them.

use std::fs;

use spire_core::catalog::{Plugin, PluginError, refuse_settings};
use spire_core::config::{FromSection, Reader, Verdict};

use super::*;

/// The plugins of a file, or every line that is told of them.
fn plugins(block: &str) -> Result<ServerPlugins, String> {
    let text = format!("server {{ trust_domain = \"a\" data_dir = \".\" }}\nplugins {{ {block} }}");
    let loaded = load_text(&text, RunFlags::default()).map_err(|error| error.to_string())?;
    ServerPlugins::assign(&loaded.config.plugins).map_err(|errors| errors.to_string())
}

const SQL: &str =
    "DataStore \"sql\" { plugin_data { database_type = \"sqlite3\" connection_string = \"x\" } }";
const KEYS: &str = "KeyManager \"memory\" {}";

#[test]
fn plugins_that_do_not_fit_have_spires_sentences() {
    let sql = |data: &str| format!("{KEYS} DataStore \"sql\" {{ plugin_data {{ {data} }} }}");
    let ok = |more: &str| format!("{SQL} {KEYS} {more}");
    let cases = [
        (
            format!("{SQL} {KEYS} KeyManager \"disk\" {{}}"),
            "plugin type \"KeyManager\" constraint not satisfied: expected exactly 1 but got 2",
        ),
        (
            SQL.to_owned(),
            "plugin type \"KeyManager\" constraint not satisfied: expected exactly 1 but got 0",
        ),
        (KEYS.to_owned(), "expecting a DataStore plugin"),
        (ok("DataStore \"other\" {}"), "only one DataStore plugin is allowed"),
        (
            format!("{KEYS} DataStore \"other\" {{}}"),
            "pluggability for the DataStore is deprecated; only the built-in \"sql\" plugin is supported",
        ),
        (ok("Foo \"bar\" {}"), "unsupported plugin type \"Foo\""),
        (
            ok("NodeAttestor \"join_token\" { plugin_cmd = \"x\" }"),
            "the built-in join_token node attestor cannot be overridden by an external plugin",
        ),
        (
            ok("NodeAttestor \"a\" {} NodeAttestor \"a\" {}"),
            "plugin \"NodeAttestor\"/\"a\" declared more than once",
        ),
        (
            ok("NodeAttestor \"a\" { plugin_data {} plugin_data_file = \"f\" }"),
            "failed to create plugin config for \"NodeAttestor\"/\"a\": only one of [plugin_data, plugin_data_file] can be used",
        ),
        (
            ok("UpstreamAuthority \"disk\" {} UpstreamAuthority \"spire\" {}"),
            "plugin type \"UpstreamAuthority\" constraint not satisfied: expected at most 1 but got 2",
        ),
        (ok("UpstreamCA \"disk\" {} UpstreamAuthority \"disk\" {}"), "both are configured"),
        (
            sql("database_type = \"oracle\" connection_string = \"x\""),
            "datastore-sql: unsupported database_type: oracle",
        ),
        (
            sql("database_type \"aws_postgres\" {} connection_string = \"x\""),
            "datastore-sql: unsupported database_type: aws_postgres",
        ),
        (sql("database_type = \"sqlite3\""), "datastore-sql: connection_string must be set"),
        (
            ok("NodeAttestor \"a\" { plugin_cmd = \"x\" plugin_checksum = \"zz\" }"),
            "malformed plugin_checksum",
        ),
    ];
    for (block, sentence) in cases {
        let told = plugins(&block).map(drop).unwrap_err();
        assert!(told.contains(sentence), "{sentence}:\n{told}");
    }
}

#[test]
fn plugins_keep_their_order_and_their_settings() {
    let assigned = plugins(&format!(
        "{SQL} {KEYS} NodeAttestor \"b\" {{ plugin_data = {{ x = 1 }} }} NodeAttestor \"a\" {{}}
         NodeAttestor \"off\" {{ enabled = false }} CredentialComposer \"uniqueid\" {{}}"
    ))
    .unwrap();
    let names: Vec<_> = assigned.node_attestors.iter().map(|plugin| plugin.name.as_str()).collect();
    assert_eq!(names, ["b", "a"]);
    assert!(!assigned.node_attestors[0].section.is_empty());
    assert_eq!(assigned.credential_composers.len(), 1);
    assert_eq!(assigned.data_store.connection_string.as_str(), "x");

    let json = r#"{"server": {"trust_domain": "a", "data_dir": "."}, "plugins": {
        "DataStore": [{"sql": [{"plugin_data": [{"database_type": "sqlite3", "connection_string": "x"}]}]}],
        "KeyManager": {"memory": {"plugin_data": {}}},
        "NodeAttestor": [{"b": {}}, {"a": {}}]}}"#;
    let config = load_text(json, RunFlags::default()).unwrap().config;
    let assigned = ServerPlugins::assign(&config.plugins).unwrap();
    let names: Vec<_> = assigned.node_attestors.iter().map(|plugin| plugin.name.as_str()).collect();
    assert_eq!(names, ["b", "a"]);
}

#[test]
fn plugins_of_old_files_are_taken() {
    let text = format!(
        "server {{ trust_domain = \"a\" data_dir = \".\" }}\nplugins {{ {SQL} {KEYS}
         UpstreamCA \"disk\" {{ plugin_data {{ ttl = \"1h\" key_file_path = \"k\" }} }}
         NodeResolver \"noop\" {{ plugin_data {{}} }} NodeResolver \"aws_iid\" {{}} }}"
    );
    let loaded = load_text(&text, RunFlags::default()).unwrap();
    assert_eq!(loaded.warnings.len(), 3, "{:?}", loaded.warnings);
    assert!(loaded.warnings.iter().all(|warning| warning.deprecation));
    let assigned = ServerPlugins::assign(&loaded.config.plugins).unwrap();
    let upstream = assigned.upstream_authority.unwrap();
    assert_eq!((upstream.kind.as_str(), upstream.name.as_str()), ("UpstreamAuthority", "disk"));
    let (ttl, _) = upstream.section.read(|reader| Some(reader.has("ttl")));
    assert_eq!(ttl, Some(false));
}

#[test]
fn each_upstream_is_taken_by_its_former_name() {
    for name in ["aws_pca", "awssecret", "disk", "spire"] {
        let assigned = plugins(&format!("{SQL} {KEYS} UpstreamCA \"{name}\" {{}}")).unwrap();
        let upstream = assigned.upstream_authority.unwrap();
        assert_eq!((upstream.kind.as_str(), upstream.name.as_str()), ("UpstreamAuthority", name));
    }
}

#[test]
fn an_old_resolver_lends_its_settings_to_the_attestor_of_its_name() {
    let text = format!(
        "server {{ trust_domain = \"a\" data_dir = \".\" }}\nplugins {{ {SQL} {KEYS}
         NodeAttestor \"azure_msi\" {{ plugin_data {{ tenants {{ t1 {{ resource_id = \"r\" }} }} key = \"own\" }} }}
         NodeResolver \"azure_msi\" {{ plugin_data {{ tenants {{ t1 {{ app_id = \"i\" }} t2 {{ app_id = \"j\" }} }} key = \"lent\" more = \"lent\" }} }} }}"
    );
    let loaded = load_text(&text, RunFlags::default()).unwrap();
    let assigned = ServerPlugins::assign(&loaded.config.plugins).unwrap();
    let [attestor] = &assigned.node_attestors[..] else { panic!("{assigned:?}") };
    let warned = |what| loaded.warnings.iter().any(|warning| warning.message.contains(what));
    assert!(warned("has tenants \"t2\", which NodeAttestor"), "{:?}", loaded.warnings);
    assert!(!warned("t1"), "{:?}", loaded.warnings);
    let (read, _) = attestor.section.read(|reader| {
        let tenants = reader.labelled("tenants", |label, reader| {
            Some((label.to_owned(), reader.string("resource_id"), reader.string("app_id")))
        });
        Some((tenants, reader.string("key"), reader.string("more")))
    });
    let (tenants, key, more) = read.unwrap();
    assert_eq!(tenants, [("t1".to_owned(), Some("r".to_owned()), Some("i".to_owned()))]);
    assert_eq!((key.as_deref(), more.as_deref()), (Some("own"), Some("lent")));
}

/// The lists of a binary without plugins but a key manager that needs `keys_path`.
const LISTS: PluginLists<'static> = PluginLists {
    key_managers: &[
        Plugin {
            name: "memory",
            build: |section, _| {
                refuse_settings(section)?;
                Err(PluginError::Unusable("not on this machine".to_owned()))
            },
        },
        Plugin {
            name: "disk",
            build: |section, _| {
                section.decode::<KeysPath>()?;
                Err(PluginError::Unusable("not on this machine".to_owned()))
            },
        },
    ],
    node_attestors: &[],
    upstream_authorities: &[],
};

struct KeysPath;
impl FromSection for KeysPath {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        reader.required("keys_path", "keys_path is required").map(|_| Self)
    }
}

fn verdict(text: &str) -> Verdict {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server.conf");
    fs::write(&path, text).unwrap();
    validate(&RunFlags { config: Some(path), ..RunFlags::default() }, LISTS)
}

#[test]
fn validate_prints_what_spire_prints() {
    let valid = verdict(&with_server(""));
    assert_eq!(
        valid,
        Verdict {
            stdout: "SPIRE server configuration file is valid.\n".into(),
            stderr: String::new(),
            valid: true
        }
    );
    let head = "server { trust_domain = \"a\" data_dir = \".\" }\nplugins {";
    let with = |plugins: &str| verdict(&format!("{head} {SQL} {plugins} }}"));

    let broken = verdict("");
    assert!(!broken.valid && broken.stdout.is_empty());
    assert!(broken.stderr.starts_with(
        "SPIRE server configuration file is invalid: trust_domain must be configured"
    ));

    let settings = with("KeyManager \"disk\" { plugin_data {} }");
    assert!(settings.stderr.starts_with(
        "SPIRE server configuration file is invalid.\nValidation errors:\n\tKeyManager \
         \"disk\":\n\t\tkeys_path is required"
    ));
    let settings = with("KeyManager \"memory\" { plugin_data { x = 1 } }");
    assert!(settings.stderr.ends_with("\t\tno supported configuration interface found\n"));
    let settings =
        with(&format!("{KEYS} NodeAttestor \"join_token\" {{ plugin_data {{ foo = 1 }} }}"));
    assert!(settings.stderr.contains("\t\tunknown setting \"foo\" encountered"), "{settings:?}");

    let aborted = with(&format!("{KEYS} NodeAttestor \"nope\" {{}}"));
    assert_eq!(
        aborted.stderr,
        "Could not validate configuration file: failed to load plugin \"nope\": no built-in \
         plugin \"nope\" for type \"NodeAttestor\""
    );
    for kind in ["Notifier", "BundlePublisher", "CredentialComposer"] {
        let unserved = with(&format!("{KEYS} {kind} \"nope\" {{}}")).stderr;
        assert!(unserved.ends_with(&format!("no built-in plugin \"nope\" for type {kind:?}")));
    }
    let external = with("KeyManager \"x\" { plugin_cmd = \"/bin/x\" }");
    assert!(external.stderr.contains("external plugins (plugin_cmd) are not supported"));
    let file = with("KeyManager \"disk\" { plugin_data_file = \"/nowhere/f\" }");
    assert!(file.stderr.contains(
        "failed to configure plugin \"disk\": failed to load plugin data: open /nowhere/f: no \
         such file or directory"
    ));
}
