use std::fs;
use std::path::Path;
use std::time::Duration;

use spire_core::keys::KeyType;

use super::*;

mod federation;
mod plugins;

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
    assert_eq!(config.experimental, ExperimentalConfig::default());
    assert_eq!(config.experimental.rotation_check_interval, Duration::from_secs(10));
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
        (
            "experimental { require_pq_kem = true }",
            "require_pq_kem is not supported by this build (server.experimental.require_pq_kem = true, line 4; remove it)",
        ),
        (
            "experimental { auth_opa_policy_engine { local { rego_path = \"p\" } } }",
            "auth_opa_policy_engine is not supported by this build (server.experimental.auth_opa_policy_engine, line 4; remove it)",
        ),
    ];
    for (lines, sentence) in cases {
        assert_refused(&with_server(lines), sentence);
    }
    let long = format!("socket_path = \"/{}\"", "x".repeat(107));
    assert_refused(&with_server(&long), "a Unix socket's path has at most 107");
}

#[test]
fn id_19_the_trust_domain_has_at_most_255_bytes() {
    let named = |bytes| format!("trust_domain = \"{}\"", "a".repeat(bytes));
    assert_eq!(checked(&named(255)).trust_domain.as_str().len(), 255);
    assert_refused(&with_server(&named(256)), "trust domain is longer than 255 bytes");
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
    assert_eq!(loaded.warnings.iter().filter(|warning| warning.deprecation).count(), 1);
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
fn what_is_not_served_is_warned_of() {
    let told = |text: String| -> Vec<String> {
        let loaded = load_text(&text, RunFlags::default()).unwrap_or_else(|e| panic!("{e}"));
        let warnings = loaded.warnings.into_iter().filter(|warning| !warning.deprecation);
        warnings.map(|warning| warning.message).collect()
    };
    let metrics = |sink: &str| told(format!("{}\ntelemetry {{ {sink} }}", with_server("")));
    for sink in [
        "Prometheus { port = 9988 }",
        "DogStatsd = [{ address = \"a\" }]",
        "Statsd = [{ address = \"a\" }]",
        "M3 = [{ address = \"a\" env = \"e\" }]",
        "InMem {}",
    ] {
        let line = "telemetry has no effect: this build makes no metrics (telemetry, line ";
        assert!(matches!(&metrics(sink)[..], [one] if one.starts_with(line)), "{sink}");
    }
    for nothing in ["", "InMem { enabled = false }", "MetricPrefix = \"p\""] {
        assert!(metrics(nothing).is_empty(), "{nothing}");
    }
    for federation in [
        "federation { bundle_endpoint { port = 8443 profile \"https_spiffe\" {} } }",
        "federation { federates_with \"a.org\" { bundle_endpoint_url = \"https://a.org\"
            bundle_endpoint_profile \"https_web\" {} } }",
        "experimental { federates_with \"c.org\" { bundle_endpoint_address = \"c.org\" } }",
    ] {
        let line = "federation has no effect: this build publishes no bundle and fetches none; ";
        let warnings = told(with_server(federation));
        assert!(matches!(&warnings[..], [one] if one.starts_with(line)), "{warnings:?}");
    }
    assert!(told(with_server("federation {}")).is_empty());
    for (key, value) in [
        ("events_based_cache", "true"),
        ("full_cache_reload_interval", "\"48h\""),
        ("event_timeout", "\"1m\""),
        ("wit_key_type", "\"ec-p256\""),
        ("wit_issuer", "\"i\""),
        ("feature_flags", "[\"wit-svid\"]"),
    ] {
        let warnings = told(with_server(&format!("experimental {{ {key} = {value} }}")));
        let line = format!("{key} has no effect: ");
        assert!(matches!(&warnings[..], [one] if one.starts_with(&line)), "{warnings:?}");
    }
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

#[test]
fn the_file_beside_the_sources_holds() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conf/server/server.conf");
    let flags = RunFlags { config: Some(path), ..RunFlags::default() };
    let loaded = load(&flags).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(loaded.warnings, []);
    ServerPlugins::assign(&loaded.config.plugins).unwrap();
}
