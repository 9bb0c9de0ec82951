//! Files with mistakes in them: every mistake is named at once, a line each.

use std::fs;
use std::path::Path;

use spire_localstack_tests::Folder;
use spire_localstack_tests::binaries::Binaries;
use spire_localstack_tests::user::User;

const SERVER: &str = r#"server {
    trust_domain = "Example.org"
    bind_port = "none"
    data_dir = "data"
    ca_ttl = "1d"
    ca_key_type = "rsa-1024"
    admin_ids = ["somebody"]
    agnt_ttl = "1h"
}
plugins {
    DataStore "sql" { plugin_data {
        database_type = "sqlite3"
        connection_string = "datastore.sqlite3"
    } }
    KeyManager "memory" {}
}
"#;

const AGENT: &str = r#"agent {
    trust_domain = "Example.org"
    server_port = "none"
    data_dir = "data"
    join_token = "never-shown"
    join_token_file = "token"
    rebootstrap_mode = "perhaps"
    availability_target = "1h"
    admin_socket_path = "/tmp/spire-agent/public/admin.sock"
    workload_x509_svid_key_type = "rsa-1024"
    insecure_bootstrap = true
    trust_bundle_path = "root.pem"
    sokcet_path = "api.sock"
}
plugins {
    KeyManager "memory" {}
    NodeAttestor "join_token" {}
    WorkloadAttestor "unix" {}
}
"#;

/// What is said about each mistake of `AGENT`, in the same order.
const AGENT_SAYS: [[&str; 4]; 10] = [
    ["could not parse trust_domain \"Example.org\": ", "agent.trust_domain", "line 2", "write a"],
    ["server_address must be configured", "agent.server_address", "line 1", "set server_address"],
    [
        "strconv.ParseInt: parsing \"none\": invalid syntax",
        "agent.server_port",
        "line 3",
        "write a",
    ],
    [
        "only one of join_token or join_token_file can be specified, not both",
        "agent.join_token_file",
        "line 6",
        "keep one of the two",
    ],
    [
        "unknown rebootstrap mode specified: perhaps",
        "agent.rebootstrap_mode",
        "line 7",
        "use never, auto or always",
    ],
    [
        "availability_target must be at least 24h0m0s",
        "agent.availability_target",
        "line 8",
        "write 24h or more",
    ],
    [
        "admin socket cannot be in the same directory or a subdirectory as that containing the \
         Workload API socket",
        "agent.admin_socket_path",
        "line 9",
        "a folder of its own",
    ],
    [
        "key type \"rsa-1024\" is unknown",
        "agent.workload_x509_svid_key_type",
        "line 10",
        "use one of",
    ],
    [
        "only one of insecure_bootstrap or trust_bundle_path can be specified, not both",
        "agent.insecure_bootstrap",
        "line 11",
        "keep one of them",
    ],
    ["unknown configuration detected", "agent.sokcet_path", "line 13", "socket_path?"],
];

#[tokio::test]
async fn the_agent_names_every_mistake_and_exits_1() {
    let program = &Binaries::find().unwrap().agent;
    every_mistake_is_named(program, AGENT, &AGENT_SAYS).await;
}

/// What is said about each mistake of `SERVER`: SPIRE's sentence, the key, the line, the remedy.
const SERVER_SAYS: [[&str; 4]; 6] = [
    ["could not parse trust_domain \"Example.org\": ", "server.trust_domain", "line 2", "write a"],
    ["strconv.ParseInt: parsing \"none\": invalid syntax", "server.bind_port", "line 3", "write a"],
    ["could not parse default CA ttl \"1d\": ", "server.ca_ttl = \"1d\"", "line 5", "24h"],
    ["key type \"rsa-1024\" is unknown", "server.ca_key_type", "line 6", "use one of"],
    ["could not parse admin ID \"somebody\": ", "server.admin_ids", "line 7", "spiffe://"],
    ["unknown configuration detected", "server.agnt_ttl", "line 8", "agent_ttl?"],
];

#[tokio::test]
async fn the_server_names_every_mistake_and_exits_1() {
    let program = &Binaries::find().unwrap().server;
    every_mistake_is_named(program, SERVER, &SERVER_SAYS).await;
}

#[tokio::test]
async fn mistakes_in_plugins_are_found_before_anything_is_made() {
    let folder = Folder::new().unwrap();
    let plugins = r#"KeyManager "disk" { plugin_data {} }
    NodeAttestor "x509pop" { plugin_data {
        mode = "foo"
    } }"#;
    let text = SERVER
        .lines()
        .filter(|line| line.contains("data_dir") || !line.contains(" = ") || line.contains("sql"))
        .collect::<Vec<_>>()
        .join("\n")
        .replace("KeyManager \"memory\" {}", plugins)
        .replace("data_dir", "trust_domain = \"example.org\"\n    data_dir");
    let program = &Binaries::find().unwrap().server;
    let (code, said) = run(program, "validate", &folder, &text).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.starts_with("SPIRE server configuration file is invalid.\n"), "{said}");
    for sentence in ["keys_path is required", "mode can only be either 'spiffe' or 'external_pki'"]
    {
        assert!(said.contains(sentence), "{said}");
    }
    assert!(!folder.join("data").exists() && !folder.join("datastore.sqlite3").exists());
}

/// `validate` and `run` both say what is expected, a line for each mistake, and exit 1.
async fn every_mistake_is_named(program: &Path, text: &str, expected: &[[&str; 4]]) {
    let folder = Folder::new().unwrap();
    for command in ["validate", "run"] {
        let (code, said) = run(program, command, &folder, text).await;
        assert_eq!(code, Some(1), "{command}: {said}");
        assert!(!said.contains("never-shown"), "{said}");
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(lines.len(), expected.len(), "{command}: {said}");
        for parts in expected {
            let named = |line: &&&str| parts.iter().all(|part| line.contains(part));
            assert_eq!(lines.iter().filter(named).count(), 1, "{command}, {parts:?}: {said}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "{command} made a file");
    }
}

/// Runs `program command` on a file that holds `text`: its exit code, and what it says of errors.
async fn run(program: &Path, command: &str, folder: &Folder, text: &str) -> (Option<i32>, String) {
    let file = folder.join("file.conf");
    fs::write(&file, text).unwrap();
    let mut process = User::current().command(program).unwrap();
    process.args([command, "-config"]).arg(file).current_dir(folder.path());
    let output = tokio::process::Command::from(process).output().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}
