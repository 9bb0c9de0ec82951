use std::fs;
use std::path::Path;
use std::time::Duration;

use spire_core::catalog::{Plugin, PluginError, refuse_settings};
use spire_core::config::{FromSection, Reader, Verdict};
use spire_core::keys::KeyType;

use super::*;

/// The plugins of a server that needs nothing else.
const PLUGINS: &str = r#"
plugins {
    DataStore "sql" {
        plugin_data { database_type = "sqlite3" connection_string = "s.sqlite3" }
    }
    KeyManager "memory" { plugin_data {} }
    NodeAttestor "join_token" { plugin_data {} }
}
"#;

fn load_text(text: &str, flags: RunFlags) -> Result<Loaded<ServerConfig>, LoadError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server.conf");
    fs::write(&path, text).unwrap();
    load(&RunFlags { config: Some(path), ..flags })
}

fn with_server(lines: &str) -> String {
    format!("server {{\n trust_domain = \"example.org\"\n data_dir = \".\"\n{lines}\n}}\n{PLUGINS}")
}

fn checked(lines: &str) -> ServerConfig {
    load_text(&with_server(lines), RunFlags::default()).unwrap_or_else(|e| panic!("{e}")).config
}

fn warnings(lines: &str) -> Vec<String> {
    let loaded = load_text(&with_server(lines), RunFlags::default());
    let loaded = loaded.unwrap_or_else(|error| panic!("{lines}: {error}"));
    loaded.warnings.into_iter().map(|warning| warning.message).collect()
}

#[track_caller]
fn assert_refused(text: &str, sentence: &str) {
    match load_text(text, RunFlags::default()) {
        Ok(_) => panic!("accepted, expected {sentence}: {text}"),
        Err(error) => {
            let told = error.to_string();
            assert!(told.lines().any(|line| line.contains(sentence)), "{sentence}:\n{told}");
        }
    }
}

#[test]
fn defaults_are_filled_in() {
    let config = checked("");
    assert_eq!((config.bind_address.as_str(), config.bind_port), ("0.0.0.0", 8081));
    assert_eq!(config.socket_path, Path::new("/tmp/spire-server/private/api.sock"));
    assert_eq!(config.ca_key_type, KeyType::EcP256);
    assert_eq!(config.jwt_key_type, KeyType::EcP256);
    assert_eq!(config.ca_subject.organization, ["SPIFFE"]);
    let hours = Duration::from_hours;
    assert_eq!((config.ca_ttl, config.agent_ttl), (hours(24), hours(1)));
    assert_eq!(config.default_jwt_svid_ttl, Duration::from_mins(5));
    assert!(config.ratelimit.attestation && config.ratelimit.signing);
    assert_eq!(config.prune_attested_nodes_batch_size, 1000);
    assert_eq!(config.max_attested_node_info_staleness, Duration::ZERO);
    assert_eq!(config.experimental, ExperimentalConfig::default());
    assert_eq!(config.health_checks.bind_port, "80");
    assert!(config.telemetry.hostname_label);
}

#[test]
fn every_key_finds_its_place() {
    let config = checked(
        r#"
        bind_address = "[::1]" bind_port = "9000" socket_path = "/s" admin_ids = ["spiffe://o/a"]
        ca_key_type = "rsa-2048" ca_ttl = "720h" agent_ttl = "2h" default_x509_svid_ttl = "3h"
        default_jwt_svid_ttl = "6m" disable_jwt_svids = true jwt_issuer = "i" log_level = "WARNING"
        log_format = "JSON" log_file = "l" audit_log_enabled = true log_source_location = true
        prune_attested_nodes_expired_for = "48h" prune_attested_nodes_batch_size = 7
        prune_tofu_nodes = true proxy_protocol_trusted_cidrs = ["10.0.0.0/8"]
        ratelimit { attestation = false } max_attested_node_info_staleness = "1m"
        ca_subject = { Country = ["DE"], CommonName = "c" }
        "#,
    );
    assert_eq!((config.bind_address.as_str(), config.bind_port), ("::1", 9000));
    assert_eq!((config.ca_key_type, config.jwt_key_type), (KeyType::Rsa2048, KeyType::Rsa2048));
    assert_eq!(config.ca_subject.country, ["DE"]);
    assert_eq!(config.ca_subject.common_name.as_deref(), Some("c"));
    assert_eq!(config.agent_ttl, Duration::from_hours(2));
    assert!(!config.ratelimit.attestation && config.ratelimit.signing);
    assert_eq!(config.prune_attested_nodes_expired_for, Some(Duration::from_hours(48)));
    assert_eq!(config.log.level.as_str(), "warning");
    assert_eq!(config.proxy_protocol_trusted_cidrs.len(), 1);
}

#[test]
fn flags_beat_the_file_and_the_file_beats_defaults() {
    let flags = RunFlags {
        trust_domain: Some("flag.org".into()),
        server_port: Some(1234),
        log_level: Some(String::new()),
        socket_path: Some("/flag".into()),
        ..RunFlags::default()
    };
    let text = with_server("bind_port = 99\nlog_level = \"debug\"");
    let config = load_text(&text, flags).unwrap().config;
    assert_eq!((config.trust_domain.as_str(), config.bind_port), ("flag.org", 1234));
    assert_eq!(config.log.level.as_str(), "debug");
    let flags = RunFlags { log_level: Some("loud".into()), ..RunFlags::default() };
    let told = load_text(&with_server(""), flags).unwrap_err().to_string();
    assert!(told.contains("could not start logger: not a valid logrus Level: \"loud\""), "{told}");
    assert!(told.contains("command line"), "{told}");
}

#[test]
fn an_empty_file_is_told_in_spires_order() {
    let told = load_text("", RunFlags::default()).unwrap_err().to_string();
    let sentences: Vec<&str> = told.lines().map(|line| line.split(" (").next().unwrap()).collect();
    assert_eq!(
        sentences,
        [
            "trust_domain must be configured",
            "data_dir must be configured",
            "plugins section must be configured"
        ]
    );
}

#[test]
fn every_mistake_is_told_at_once_and_known_keys_are_never_called_unknown() {
    let text = "server {\n ca_ttl = \"1d\"\n bind_port = \"abc\"\n zz = 1\n jwt_issuer = \"i\"\n}";
    let told = load_text(text, RunFlags::default()).unwrap_err().to_string();
    let expected = [
        "trust_domain must be configured",
        "data_dir must be configured",
        "could not parse default CA ttl \"1d\"",
        "strconv.ParseInt: parsing \"abc\": invalid syntax",
        "unknown configuration detected (server.zz, line 4; remove it)",
        "plugins section must be configured",
    ];
    assert_eq!(told.lines().count(), expected.len(), "{told}");
    for (line, sentence) in told.lines().zip(expected) {
        assert!(line.contains(sentence), "{sentence}:\n{told}");
    }
}

#[test]
fn files_that_cannot_be_read_are_told() {
    let missing = RunFlags { config: Some("/nowhere/x.conf".into()), ..RunFlags::default() };
    let told = load(&missing).unwrap_err().to_string();
    assert_eq!(told, "could not find config file /nowhere/x.conf: please use the -config flag");
    let told = load_text("a = 'x'", RunFlags::default()).unwrap_err().to_string();
    assert!(told.starts_with("unable to decode configuration at \"/"), "{told}");
    assert!(told.contains("\": At 1:5: illegal char"), "{told}");
    assert_refused(
        &with_server("audit_log_enabled = \"true\""),
        "At 4:21: root.server.audit_log_enabled: unknown type *ast.LiteralType",
    );
    assert_refused(
        &with_server("audit_log_enabled = \"true\""),
        "unable to decode configuration at \"",
    );
}

#[test]
fn mistakes_in_the_block_server_have_spires_sentences() {
    let characters = "trust domain characters are limited to lowercase letters, numbers, dots, \
                      dashes, and underscores";
    let cases = [
        (
            "trust_domain = \"Example.org\"",
            &*format!("could not parse trust_domain \"Example.org\": {characters}"),
        ),
        ("trust_domain = \"x y\"", &*format!("could not parse trust_domain \"x y\": {characters}")),
        ("ca_ttl = \"x\"", "could not parse default CA ttl \"x\": time: invalid duration \"x\""),
        ("ca_ttl = \"1d\"", "time: unknown unit \"d\" in duration \"1d\""),
        ("ca_ttl = \"60\"", "time: missing unit in duration \"60\""),
        ("default_jwt_svid_ttl = \"x\"", "could not parse default JWT SVID ttl \"x\": time"),
        ("agent_ttl = \"x\"", "could not parse agent ttl \"x\": time: invalid duration"),
        (
            "max_attested_node_info_staleness = \"x\"",
            "could not parse max attested node staleness \"x\": time",
        ),
        (
            "prune_attested_nodes_expired_for = \"x\"",
            "could not parse prune_attested_nodes_expired_for: time",
        ),
        (
            "ca_key_type = \"rsa-1024\"",
            "error parsing ca_key_type: key type \"rsa-1024\" is unknown; must be one of [rsa-2048, rsa-4096, ec-p256, ec-p384]",
        ),
        ("jwt_key_type = \"x\"", "error parsing jwt_key_type: key type \"x\" is unknown"),
        ("log_level = \"loud\"", "could not start logger: not a valid logrus Level: \"loud\""),
        ("log_format = \"xml\"", "could not start logger: unknown logger format: \"xml\""),
        ("admin_ids = [\"foo\"]", "could not parse admin ID \"foo\": scheme is missing or invalid"),
        (
            "proxy_protocol_trusted_cidrs = [\"x\"]",
            "invalid proxy_protocol_trusted_cidrs value \"x\": invalid CIDR address: x",
        ),
        ("bind_port = \"abc\"", "strconv.ParseInt: parsing \"abc\": invalid syntax"),
        ("allow_unsafe_ids = true", "allow_unsafe_ids was removed"),
        ("registration_uds_path = \"/a\" socket_path = \"/b\"", "both are set"),
        (
            "experimental { feature_flags = [\"zz\"] }",
            "error loading feature flags: unknown feature flag(s): [zz]",
        ),
        (
            "experimental { sql_transaction_timeout = \"1m\" event_timeout = \"1m\" }",
            "both experimental sql_transaction_timeout and event_timeout set, only set event_timeout",
        ),
        (
            "experimental { named_pipe_name = \"x\" }",
            "invalid configuration: named_pipe_name is not supported in this platform; please use socket_path instead",
        ),
        (
            "experimental { cache_reload_interval = \"x\" }",
            "could not parse cache reload interval: time",
        ),
    ];
    for (lines, sentence) in cases {
        assert_refused(&with_server(lines), sentence);
    }
    let long = format!("socket_path = \"/{}\"", "x".repeat(107));
    assert_refused(&with_server(&long), "a Unix socket's path has at most 107");
}

#[test]
fn mistakes_in_federation_have_spires_sentences() {
    let web = "bundle_endpoint_profile \"https_web\" {}";
    let url = "bundle_endpoint_url = \"https://x\"";
    let with = |body: &str| {
        with_server(&format!("federation {{ federates_with \"x.org\" {{ {body} }} }}"))
    };
    let relationship = "error parsing federation relationship for trust domain \"x.org\": ";
    let named = "federation.federates_with[\"x.org\"].bundle_endpoint_url";
    assert_refused(&with(web), &format!("{named} must be configured"));
    let plain = format!("bundle_endpoint_url = \"http://x\" {web}");
    assert_refused(
        &with(&plain),
        &format!("{named} must use the HTTPS protocol; URL found: \"http://x\""),
    );
    assert_refused(
        &with(url),
        "federation configuration for trust domain \"x.org\": missing bundle endpoint configuration",
    );
    let no_id = format!("{url} bundle_endpoint_profile \"https_spiffe\" {{}}");
    assert_refused(
        &with(&no_id),
        &format!("{relationship}could not get endpoint SPIFFE ID: cannot be empty"),
    );
    let two = format!(
        "{url} {web} bundle_endpoint_profile \"https_spiffe\" {{ endpoint_spiffe_id = \"spiffe://x.org/e\" }}"
    );
    assert_refused(&with(&two), "exactly one bundle endpoint profile is expected");
    let none = format!("{url} bundle_endpoint_profile {{}}");
    assert_refused(&with(&none), "exactly one bundle endpoint profile is expected");

    let endpoint =
        |body: &str| with_server(&format!("federation {{ bundle_endpoint {{ {body} }} }}"));
    assert_refused(
        &endpoint("profile \"https_web\" {}"),
        "malformed https_web profile configuration: 'acme' or 'serving_cert_file' is required",
    );
    assert_refused(
        &endpoint("profile \"https_web\" { acme {} } acme {}"),
        "acme and profile cannot both be configured",
    );
    assert_refused(
        &endpoint("refresh_hint = \"x\""),
        "could not parse refresh_hint \"x\": time: invalid duration",
    );
    assert_refused(
        &endpoint("profile \"ftp\" {}"),
        "unknown bundle endpoint profile configured: \"ftp\"",
    );
    assert_refused(
        &endpoint("zz = 1"),
        "unknown configuration detected (server.federation.bundle_endpoint.zz",
    );
}

#[test]
fn federation_is_read_in_its_present_and_former_forms() {
    let config = checked(
        r#"federation {
            bundle_endpoint { address = "127.0.0.1" port = 8443 profile "https_web" {
                acme { domain_name = "d" email = "e" tos_accepted = true }
                serving_cert_file { cert_file_path = "c" key_file_path = "k" } } }
            federates_with "a.org" { bundle_endpoint_url = "https://a.org/b"
                bundle_endpoint_profile "https_spiffe" { endpoint_spiffe_id = "spiffe://a.org/e" } }
            federates_with "b.org" { bundle_endpoint { address = "b.org" use_web_pki = true } }
        }
        experimental { federates_with "c.org" {
            bundle_endpoint_address = "c.org" bundle_endpoint_port = 8443 } }"#,
    );
    let endpoint = config.federation.bundle_endpoint.unwrap();
    assert!(matches!(endpoint.profile, BundleEndpointProfile::Acme(acme) if acme.tos_accepted));
    let told: Vec<_> = config
        .federation
        .federates_with
        .iter()
        .map(|with| (with.trust_domain.as_str(), with.bundle_endpoint_url.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("a.org", "https://a.org/b"),
            ("b.org", "https://b.org:443"),
            ("c.org", "https://c.org:8443")
        ]
    );
    let FederationProfile::HttpsSpiffe { endpoint_spiffe_id } =
        &config.federation.federates_with[2].profile
    else {
        panic!("the former default is an SVID")
    };
    assert_eq!(endpoint_spiffe_id.as_str(), "spiffe://c.org/spire/server");
}

#[test]
fn unknown_keys_are_fatal_where_spire_says_so() {
    let at = |text: &str, section: &str| {
        let Err(LoadError::Mistakes { unknown, .. }) = load_text(text, RunFlags::default()) else {
            panic!("accepted: {text}")
        };
        assert_eq!(unknown.len(), 1, "{text}");
        assert_eq!((unknown[0].section, &*unknown[0].keys[0]), (section, "zz"), "{text}");
    };
    at(&format!("{}\nzz = 1", with_server("")), "top-level");
    at(&with_server("zz = 1"), "server");
    at(&with_server("ca_subject { zz = 1 }"), "ca_subject");
    at(&with_server("ratelimit { zz = 1 }"), "ratelimit");
    at(&with_server("federation { bundle_endpoint { zz = 1 } }"), "bundle endpoint");
    at(&format!("{}\nhealth_checks {{ zz = 1 }}", with_server("")), "health check");
    for sink in ["Prometheus", "DogStatsd", "Statsd", "M3", "InMem"] {
        at(&format!("{}\ntelemetry {{ {sink} {{ zz = 1 }} }}", with_server("")), sink);
    }
    for tolerated in ["experimental { zz = 1 }", "federation { zz = 1 }"] {
        checked(tolerated);
    }
    let text = format!("{}\ntelemetry {{ zz = 1 }}", with_server(""));
    load_text(&text, RunFlags::default()).unwrap();
}

#[test]
fn telemetry_takes_lists_and_repeated_blocks() {
    let text = format!(
        "{}\ntelemetry {{ DogStatsd = [{{ address = \"a\" }}, {{ address = \"b\" }}]
         Statsd {{ address = \"c\" }} Statsd {{ address = \"d\" }} prometheus {{ port = 9988 }}
         InMem {{ enabled = false }} M3 = [{{ address = \"e\", env = \"f\" }}] }}",
        with_server("")
    );
    let loaded = load_text(&text, RunFlags::default()).unwrap();
    let telemetry = loaded.config.telemetry;
    assert_eq!(
        (telemetry.dog_statsd, telemetry.statsd),
        (vec!["a".into(), "b".into()], vec!["c".into(), "d".into()])
    );
    assert_eq!(telemetry.prometheus.unwrap().port, 9988);
    assert!(!telemetry.in_memory);
    assert_eq!(loaded.warnings.len(), 1);
    let tls = |tls: &str| {
        format!("{}\ntelemetry {{ Prometheus {{ tls {{ {tls} }} }} }}", with_server(""))
    };
    assert_refused(
        &tls("cert_file = \"c\" use_spire_svid = true"),
        "cert_file and key_file cannot be configured when use_spire_svid is enabled",
    );
    assert_refused(
        &tls("cert_file = \"c\""),
        "cert_file and key_file must both be configured unless use_spire_svid is enabled",
    );
    assert_refused(
        &tls(
            "use_spire_svid = true client_ca_file = \"c\" authorized_spiffe_ids = [\"spiffe://a/b\"]",
        ),
        "client_ca_file cannot be configured with authorized_spiffe_ids",
    );
}

#[test]
fn former_spellings_are_taken_with_one_warning_each() {
    let cases = [
        "registration_uds_path = \"/s\"",
        "svid_ttl = \"2h\"",
        "default_svid_ttl = \"2h\"",
        "upstream_bundle = true",
        "umask = \"0077\"",
        "plugin_dir = \"x\"",
        "allow_unsafe_ids = false",
        "omit_x509svid_uid = true",
        "use_legacy_downstream_x509_ca_ttl = true",
        "exclude_sn_from_ca_subject = true",
        "experimental { allow_agentless_node_attestors = true }",
        "experimental { use_rego_v1 = true }",
        "ca_subject { CommonName = \"x\" }",
    ];
    for lines in cases {
        assert_eq!(warnings(lines).len(), 1, "{lines}: {:?}", warnings(lines));
    }
    assert_eq!(checked("svid_ttl = \"2h\"").default_x509_svid_ttl, Duration::from_hours(2));
    assert_eq!(checked("registration_uds_path = \"/s\"").socket_path, Path::new("/s"));
    let flags =
        RunFlags { umask: Some("0077".into()), upstream_bundle: true, ..RunFlags::default() };
    assert_eq!(load_text(&with_server(""), flags).unwrap().warnings.len(), 2);
}

#[test]
fn lifetimes_that_rotation_cuts_short_are_warned_of() {
    assert!(warnings("").is_empty());
    let told =
        warnings("ca_ttl = \"3m\" default_x509_svid_ttl = \"40s\" default_jwt_svid_ttl = \"30s\"");
    assert_eq!(
        told,
        ["default_x509_svid_ttl is too high for the configured ca_ttl value. SVIDs with shorter \
          lifetimes may be issued. Please set default_x509_svid_ttl to 30s or less, or the ca_ttl \
          to 4m or more, to guarantee the full default_x509_svid_ttl lifetime when CA rotations \
          are scheduled."]
    );
    let told = warnings("agent_ttl = \"48h\"");
    assert!(told[0].contains("set agent_ttl to 4h or less, or the ca_ttl to 288h or more"));
    let told = warnings("agent_ttl = \"200h\"");
    assert!(told[0].contains("set agent_ttl to 168h or less, and the ca_ttl to 1008h or more"));
    let told = warnings("ca_ttl = \"2000h\" agent_ttl = \"200h\"");
    assert!(told[0].contains("agent_ttl is too high. SVIDs"));
}

#[test]
fn variables_of_the_environment_are_replaced_on_demand() {
    let text = with_server("jwt_issuer = \"${SPIRE_TEST_UNSET_VARIABLE}x$$y\"");
    let config = load_text(&text, RunFlags { expand_env: true, ..RunFlags::default() });
    assert_eq!(config.unwrap().config.jwt_issuer.as_deref(), Some("x$y"));
    let config = load_text(&text, RunFlags::default()).unwrap().config;
    assert_eq!(config.jwt_issuer.as_deref(), Some("${SPIRE_TEST_UNSET_VARIABLE}x$$y"));
}

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
    assert_eq!(assigned.data_store.connection_string, "x");

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
    assert_eq!(loaded.warnings.len(), 2, "{:?}", loaded.warnings);
    assert!(loaded.warnings.iter().all(|warning| warning.deprecation));
    let assigned = ServerPlugins::assign(&loaded.config.plugins).unwrap();
    let upstream = assigned.upstream_authority.unwrap();
    assert_eq!((upstream.kind.as_str(), upstream.name.as_str()), ("UpstreamAuthority", "disk"));
    let (ttl, _) = upstream.section.read(|reader| Some(reader.has("ttl")));
    assert_eq!(ttl, Some(false));
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
    let external = with("KeyManager \"x\" { plugin_cmd = \"/bin/x\" }");
    assert!(external.stderr.contains("external plugins (plugin_cmd) are not supported"));
    let file = with("KeyManager \"disk\" { plugin_data_file = \"/nowhere/f\" }");
    assert!(file.stderr.contains(
        "failed to configure plugin \"disk\": failed to load plugin data: open /nowhere/f: no \
         such file or directory"
    ));
}

#[test]
fn the_file_beside_the_sources_holds() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conf/server/server.conf");
    let flags = RunFlags { config: Some(path), ..RunFlags::default() };
    let loaded = load(&flags).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(loaded.warnings, []);
    ServerPlugins::assign(&loaded.config.plugins).unwrap();
}
