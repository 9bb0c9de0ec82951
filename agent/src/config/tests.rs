use std::fs;
use std::path::Path;
use std::time::Duration;

use spire_core::catalog::{Plugin, PluginError, refuse_settings};
use spire_core::config::Verdict;
use spire_core::keys::KeyType;

use super::*;

/// The plugins of an agent that needs nothing else.
const PLUGINS: &str = r#"
plugins {
    KeyManager "memory" { plugin_data {} }
    NodeAttestor "join_token" { plugin_data {} }
    WorkloadAttestor "unix" { plugin_data {} }
}
"#;

fn load_text(text: &str, flags: RunFlags) -> Result<Loaded<AgentConfig>, LoadError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.conf");
    fs::write(&path, text).unwrap();
    load(&RunFlags { config: Some(path), ..flags })
}

/// A whole file but for the source of the first bundle.
fn without_source(lines: &str) -> String {
    format!(
        "agent {{\n trust_domain = \"example.org\"\n server_address = \"server\" server_port = 8081
         {lines}\n}}\n{PLUGINS}"
    )
}

fn with_agent(lines: &str) -> String {
    without_source(&format!("trust_bundle_path = \"b.crt\"\n{lines}"))
}

fn checked(lines: &str) -> AgentConfig {
    load_text(&with_agent(lines), RunFlags::default()).unwrap_or_else(|e| panic!("{e}")).config
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
    assert_eq!(config.server.to_string(), "server:8081");
    assert_eq!(config.socket_path, Path::new("/tmp/spire-agent/public/api.sock"));
    assert_eq!(config.data_dir, Path::new("."));
    assert_eq!((config.x509_svid_cache_max_size, config.jwt_svid_cache_max_size), (1000, 1000));
    assert_eq!(config.rebootstrap_mode, RebootstrapMode::Never);
    assert_eq!(config.rebootstrap_delay, Duration::from_mins(10));
    assert_eq!(config.workload_x509_svid_key_type, KeyType::EcP256);
    assert_eq!(config.sds.default_bundle_name, "ROOTCA");
    assert_eq!(config.experimental, ExperimentalConfig::default());
    assert_eq!((config.join_token, config.admin_socket_path), (None, None));
    assert!(!config.persist_cache);
    let file = BundleSource::File { path: "b.crt".into(), format: BundleFormat::Pem };
    assert_eq!(config.bundle_source, file);
}

#[test]
fn an_empty_file_is_told_in_spires_order() {
    let told = load_text("", RunFlags::default()).unwrap_err().to_string();
    let sentences: Vec<&str> = told.lines().map(|line| line.split(" (").next().unwrap()).collect();
    assert_eq!(
        sentences,
        [
            "plugins section must be configured",
            "server_address must be configured",
            "server_port must be configured",
            "trust_domain must be configured",
            "trust_bundle_path, trust_bundle_url, or trust_bundle_spiffe_workload_api must be \
             configured unless insecure_bootstrap is set",
        ]
    );
}

#[test]
fn known_keys_are_never_called_unknown() {
    let text = "agent {\n server_port = 1\n log_level = \"x\"\n persist_cache = true\n}";
    let told = load_text(text, RunFlags::default()).unwrap_err().to_string();
    assert!(told.contains("not a valid logrus Level: \"x\""), "{told}");
    assert!(!told.contains("unknown configuration"), "{told}");
}

#[test]
fn flags_fill_a_file_that_says_nothing() {
    let flags = RunFlags {
        join_token: Some(Zeroizing::new("secret-token".to_owned())),
        server_address: Some("[::1]".into()),
        server_port: Some(9),
        trust_domain: Some("flag.org".into()),
        insecure_bootstrap: true,
        disable_sds_api: true,
        rebootstrap_delay: Some("1h".into()),
        ..RunFlags::default()
    };
    let config = load_text(PLUGINS, flags).unwrap().config;
    assert_eq!(config.server.to_string(), "[::1]:9");
    assert_eq!(config.bundle_source, BundleSource::Insecure);
    assert!(config.disable_sds_api && !config.disable_workload_api);
    assert_eq!(config.rebootstrap_delay, Duration::from_hours(1));
    assert_eq!(config.join_token.as_ref().unwrap().as_str(), "secret-token");
    assert!(!format!("{config:?}").contains("secret-token"));
}

#[test]
fn a_bundle_has_exactly_one_source() {
    let path = "trust_bundle_path = \"b\" ";
    let url = "trust_bundle_url = \"https://b\" ";
    let api = "trust_bundle_spiffe_workload_api = \"unix:/b\" ";
    let insecure = "insecure_bootstrap = true ";
    let source = |lines: &str| {
        load_text(&without_source(lines), RunFlags::default()).unwrap().config.bundle_source
    };
    assert_eq!(source(insecure), BundleSource::Insecure);
    assert_eq!(source(api), BundleSource::WorkloadApi { address: "unix:/b".into() });
    let over_socket = "trust_bundle_url = \"http://b/c?x=1\" trust_bundle_unix_socket = \"/s\"
                       trust_bundle_format = \"spiffe\"";
    let BundleSource::Url { url: read, socket, format } = source(over_socket) else { panic!() };
    assert_eq!((read.as_str(), format), ("http://b/c?x=1", BundleFormat::Spiffe));
    assert_eq!(socket.as_deref(), Some(Path::new("/s")));

    let cases = [
        (
            format!("{insecure}{path}"),
            "only one of insecure_bootstrap or trust_bundle_path can be specified, not both",
        ),
        (
            format!("{url}{path}"),
            "only one of trust_bundle_url or trust_bundle_path can be specified, not both",
        ),
        (
            format!("{insecure}{url}{path}"),
            "only one of insecure_bootstrap, trust_bundle_url, or trust_bundle_path can be specified, not the three options",
        ),
        (format!("{insecure}{url}{path}{api}"), "can be specified, not all options"),
        ("trust_bundle_url = \"http://b\"".into(), "trust bundle URL must start with https://"),
        (
            format!("{path}trust_bundle_unix_socket = \"/s\""),
            "if trust_bundle_unix_socket is specified, so must be trust_bundle_url",
        ),
        (
            format!("{url}trust_bundle_unix_socket = \"/s\""),
            "trust bundle URL must start with http:// when used with trust bundle unix socket",
        ),
        (
            "trust_bundle_url = \"https://b?spiffe-x=1\"".into(),
            "trust_bundle_url query params can not start with spiffe-",
        ),
        (
            "trust_bundle_url = \"https://b?spire-x=1\"".into(),
            "trust_bundle_url query params can not start with spire-",
        ),
        (
            format!("{path}trust_bundle_format = \"der\""),
            "invalid value for trust_bundle_format, expected \"pem\" or \"spiffe\"",
        ),
        (
            format!("{insecure}rebootstrap_mode = \"auto\""),
            "insecure_bootstrap option can not be used with rebootstrapping",
        ),
    ];
    for (lines, sentence) in cases {
        assert_refused(&without_source(&lines), sentence);
    }
}

#[test]
fn mistakes_in_the_block_agent_have_spires_sentences() {
    let near = "socket cannot be in the same directory or a subdirectory as that containing the \
                Workload API socket";
    let cases = [
        ("server_port = 0", "server_port must be configured"),
        ("trust_domain = \"X\"", "could not parse trust_domain \"X\": trust domain characters"),
        (
            "join_token = \"a\" join_token_file = \"b\"",
            "only one of join_token or join_token_file can be specified, not both",
        ),
        (
            "join_token_file = \"/nowhere/x\"",
            "unable to read join token file \"/nowhere/x\": open /nowhere/x: no such file or directory",
        ),
        ("join_token_file = \"/dev/null\"", "join token file is empty"),
        ("availability_target = \"1h\"", "availability_target must be at least 24h0m0s"),
        (
            "availability_target = \"x\"",
            "unable to parse availability_target: time: invalid duration \"x\"",
        ),
        ("rebootstrap_mode = \"x\"", "unknown rebootstrap mode specified: x"),
        ("rebootstrap_delay = \"x\"", "error parsing rebootstrap delay duration: time: invalid"),
        (
            "workload_x509_svid_key_type = \"rsa-4096\"",
            "key type \"rsa-4096\" is unknown; must be one of [rsa-2048, ec-p256, ec-p384]",
        ),
        (
            "authorized_delegates = [\"foo\"]",
            "error validating authorized delegate: scheme is missing or invalid",
        ),
        (
            "authorized_delegates = [\"spiffe://o.org/x\"]",
            "error validating authorized delegate: SPIFFE ID \"spiffe://o.org/x\" is not a member of trust domain \"example.org\"",
        ),
        ("x509_svid_cache_max_size = -1", "x509_svid_cache_max_size should not be negative"),
        ("jwt_svid_cache_max_size = -1", "jwt_svid_cache_max_size should not be negative"),
        ("log_level = \"loud\"", "could not start logger: not a valid logrus Level: \"loud\""),
        ("socket_path = \"/a/b/s\" admin_socket_path = \"/a/b/t\"", &*format!("admin {near}")),
        ("socket_path = \"/a/b/s\" admin_socket_path = \"/a/b/c/t\"", near),
        (
            "socket_path = \"/a/b/s\" experimental { broker { socket_path = \"/a/b/t\" } }",
            &*format!("broker {near}"),
        ),
        (
            "experimental { sync_interval = \"x\" }",
            "could not parse synchronization interval: time",
        ),
        (
            "experimental { jwt_svid_cache_hit_timeout = \"1s\" }",
            "jwt_svid_cache_hit_timeout (1s) must be greater than 5s",
        ),
        (
            "experimental { jwt_svid_cache_hit_timeout = \"1m\" }",
            "jwt_svid_cache_hit_timeout (1m0s) must be less than 30s",
        ),
        (
            "experimental { ratelimit { fetch_jwt_svid = -1 } }",
            "experimental.ratelimit.fetch_jwt_svid must not be negative",
        ),
        (
            "experimental { require_pq_kem = true }",
            "require_pq_kem is not supported by this build (agent.experimental.require_pq_kem = true, line 5; remove it)",
        ),
        (
            "experimental { feature_flags = [\"zz\"] }",
            "error loading feature flags: unknown feature flag(s): [zz]",
        ),
        (
            "experimental { admin_named_pipe_name = \"x\" }",
            "invalid configuration: admin_named_pipe_name is not supported in this platform; please use admin_socket_path instead",
        ),
    ];
    for (lines, sentence) in cases {
        assert_refused(&with_agent(lines), sentence);
    }
    checked("socket_path = \"/a/b/s\" admin_socket_path = \"/a/c/t\"");
    checked("authorized_delegates = [\"spiffe://example.org/x\"]");
}

#[test]
fn a_token_may_lie_in_a_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "  abc\n").unwrap();
    let config = checked(&format!("join_token_file = {:?}", file.path()));
    assert_eq!(config.join_token.unwrap().as_str(), "abc");
}

#[test]
fn unknown_keys_are_fatal_where_spire_says_so() {
    let at = |text: &str, section: &str| {
        let Err(LoadError::Mistakes { unknown, .. }) = load_text(text, RunFlags::default()) else {
            panic!("accepted: {text}")
        };
        assert_eq!((unknown[0].section, &*unknown[0].keys[0]), (section, "zz"), "{text}");
    };
    at(&format!("{}\nzz = 1", with_agent("")), "top-level");
    at(&with_agent("zz = 1"), "agent");
    at(&with_agent("experimental { ratelimit { zz = 1 } }"), "ratelimit");
    checked("experimental { zz = 1 }\nsds { zz = 1 }");
}

#[test]
fn we_01_03_04_workloads_find_a_unix_socket_and_no_port() {
    assert_eq!(checked("").socket_path, Path::new("/tmp/spire-agent/public/api.sock"));
    for key in ["bind_address", "bind_port", "listen_address"] {
        let text = with_agent(&format!("{key} = \"1\""));
        let Err(LoadError::Mistakes { unknown, .. }) = load_text(&text, RunFlags::default()) else {
            panic!("{key} is taken")
        };
        assert_eq!(unknown[0].keys, [key]);
    }
}

#[test]
fn former_spellings_are_taken_with_one_warning_each() {
    for lines in [
        "enable_sds = true",
        "umask = \"0077\"",
        "retry_bootstrap = true",
        "retry_rebootstrap = true",
        "disable_reattest_to_renew = true",
        "experimental { retry_bootstrap = true }",
        "experimental { use_sync_authorized_entries = true }",
    ] {
        let warnings = load_text(&with_agent(lines), RunFlags::default()).unwrap().warnings;
        assert_eq!(warnings.len(), 1, "{lines}: {warnings:?}");
        assert!(warnings[0].deprecation);
    }
}

#[test]
fn brokers_are_checked_and_refused() {
    let refused = "broker is not supported by this build (agent.experimental.broker, line 5; \
                   remove it)";
    let types = "allowed_reference_types = [{ type_url = \"*\", allow_over_tcp = true }]";
    let whole = format!("brokers = [{{ id = \"spiffe://example.org/b\" {types} }}]");
    for (body, sentence) in [
        (whole.as_str(), refused),
        ("brokers = [{ id = \"b\" }]", "could not parse broker ID \"b\": scheme is missing"),
        ("brokers = [{}]", "broker id must be configured"),
    ] {
        let broker = format!("broker {{ bind_address = \"127.0.0.1:9\" {body} }}");
        assert_refused(&with_agent(&format!("experimental {{ {broker} }}")), sentence);
    }
    assert_refused(&with_agent("experimental { broker {} }"), "broker needs socket_path or bind");
}

#[test]
fn what_is_not_served_is_warned_of() {
    let told = |lines: &str| -> Vec<String> {
        let loaded = load_text(&with_agent(lines), RunFlags::default()).unwrap();
        loaded.warnings.into_iter().map(|warning| warning.message).collect()
    };
    for (lines, sentence) in [
        ("sds { default_svid_name = \"x\" }", "sds has no effect: this build does not serve SDS ("),
        (
            "authorized_delegates = [\"spiffe://example.org/x\"]",
            "authorized_delegates has no effect: this build does not serve the Delegated Identity \
             API (",
        ),
        ("} telemetry { Prometheus {}", "telemetry has no effect: this build makes no metrics ("),
        (
            "experimental { feature_flags = [\"wit-svid\"] }",
            "feature_flags has no effect: this build issues no WIT-SVIDs (",
        ),
    ] {
        let warnings = told(lines);
        assert!(matches!(&warnings[..], [one] if one.starts_with(sentence)), "{warnings:?}");
    }
    assert!(told("authorized_delegates = []").is_empty());
}

#[test]
fn variables_of_the_environment_are_replaced_on_demand() {
    let text = with_agent("log_file = \"${SPIRE_TEST_UNSET_VARIABLE}x$$y\"");
    let file = |expand_env| {
        let flags = RunFlags { expand_env, ..RunFlags::default() };
        load_text(&text, flags).unwrap().config.log.file.unwrap()
    };
    assert_eq!(file(true), Path::new("x$y"));
    assert_eq!(file(false), Path::new("${SPIRE_TEST_UNSET_VARIABLE}x$$y"));
}

#[test]
fn plugins_that_do_not_fit_have_spires_sentences() {
    let told = |plugins: &str| {
        let text = with_agent("").replace(PLUGINS, &format!("plugins {{ {plugins} }}"));
        let config = load_text(&text, RunFlags::default()).unwrap().config;
        AgentPlugins::assign(&config.plugins).unwrap_err().to_string()
    };
    let all = told("Foo \"x\" {}");
    for sentence in [
        "plugin type \"WorkloadAttestor\" constraint not satisfied: expected at least 1 but got 0",
        "plugin type \"NodeAttestor\" constraint not satisfied: expected exactly 1 but got 0",
        "plugin type \"KeyManager\" constraint not satisfied: expected exactly 1 but got 0",
        "unsupported plugin type \"Foo\"",
    ] {
        assert!(all.contains(sentence), "{sentence}:\n{all}");
    }
}

/// The lists of a binary with one plugin that takes no settings.
const LISTS: PluginLists<'static> = PluginLists {
    key_managers: &[Plugin {
        name: "memory",
        build: |section, _| {
            refuse_settings(section)?;
            Err(PluginError::Unusable("not on this machine".to_owned()))
        },
    }],
    node_attestors: &[Plugin {
        name: "join_token",
        build: |section, _| {
            refuse_settings(section)?;
            Err(PluginError::Unusable("not on this machine".to_owned()))
        },
    }],
    workload_attestors: &[Plugin {
        name: "unix",
        build: |_, _| Err(PluginError::Unusable("not on this machine".to_owned())),
    }],
};

fn verdict(text: &str) -> Verdict {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.conf");
    fs::write(&path, text).unwrap();
    validate(&RunFlags { config: Some(path), ..RunFlags::default() }, LISTS)
}

#[test]
fn validate_prints_what_spire_prints() {
    let valid = verdict(&with_agent(""));
    assert_eq!(
        (valid.stdout.as_str(), valid.stderr.as_str(), valid.valid),
        ("SPIRE agent configuration file is valid.\n", "", true)
    );
    let broken = verdict(&with_agent("server_port = 0"));
    assert!(
        broken.stderr.starts_with(
            "SPIRE agent configuration file is invalid: server_port must be configured"
        )
    );
    let with_store = PLUGINS.trim_end().trim_end_matches('}').to_owned() + "SVIDStore \"s\" {} }";
    let unserved = verdict(&with_agent("").replace(PLUGINS, &with_store)).stderr;
    let told = "failed to load plugin \"s\": no built-in plugin \"s\" for type \"SVIDStore\"";
    assert_eq!(unserved, format!("Could not validate configuration file: {told}"));
    let text = with_agent("")
        .replace("\"join_token\" { plugin_data {} }", "\"join_token\" { plugin_data { x = 1 } }");
    let settings = verdict(&text);
    assert!(!settings.valid);
    assert!(settings.stderr.contains(
        "\tNodeAttestor \"join_token\":\n\t\tno supported configuration interface found\n"
    ));
}

#[test]
fn the_file_beside_the_sources_holds() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conf/agent/agent.conf");
    let loaded = load(&RunFlags { config: Some(path), ..RunFlags::default() });
    let loaded = loaded.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(loaded.warnings, []);
    AgentPlugins::assign(&loaded.config.plugins).unwrap();
}
