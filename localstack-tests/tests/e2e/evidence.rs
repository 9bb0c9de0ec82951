//! Evidence that a node writes down, and what the server says to it: with the server running and
//! stopped, of a node that is welcome and of one that is banned.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use spire_localstack_tests::binaries::Binaries;
use spire_localstack_tests::command::{self, Answer};
use spire_localstack_tests::folder::Folder;
use spire_localstack_tests::process::Process;
use spire_localstack_tests::server::{Server, ServerFile, TRUST_DOMAIN};

#[tokio::test]
async fn written_evidence_is_checked_as_a_node_would_be() {
    let folder = Folder::new().unwrap();
    certificates(folder.path());
    let root = folder.join("root.pem");
    let plugins = format!(
        "NodeAttestor \"x509pop\" {{ plugin_data {{ ca_bundle_path = \"{}\" }} }}",
        root.display()
    );
    let file = ServerFile { plugins, ..ServerFile::default() };
    let mut server = Server::start(&folder, &file).await.unwrap();
    let agent_file = agent_file(&folder, &server).await;

    let program = Binaries::find().unwrap();
    let collect = || {
        let mut command = Command::new(&program.agent);
        printed(command.args(["evidence", "collect", "-config"]).arg(&agent_file))
    };
    let written: Value = serde_json::from_str(&collect()).unwrap();
    assert_eq!(written["type"], "x509pop");
    let evidence = folder.join("evidence.json");
    fs::write(&evidence, written.to_string()).unwrap();
    let verify = |more: &[&str]| {
        let mut command = Command::new(&program.server);
        command.args(["evidence", "verify", "-config"]).arg(folder.join("server.conf"));
        command.arg("-file").arg(&evidence).args(more).output().unwrap()
    };

    let verdict = verify(&[]);
    let text = told(&verdict.stdout);
    assert!(verdict.status.success(), "{text}{}", told(&verdict.stderr));
    for line in [
        "Check           : passed   certificate chain",
        "Check           : skipped  possession of the key: only a challenged node can prove it",
        "Check           : passed   first use",
        "Selector        : x509pop:subject:cn:node-1",
        "Verdict         : accepted",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let verdict: Value = serde_json::from_slice(&verify(&["-output", "json"]).stdout).unwrap();
    assert_eq!(verdict["accepted"], true);
    let id = verdict["agent_id"].as_str().unwrap().to_owned();
    assert!(id.starts_with(&format!("spiffe://{TRUST_DOMAIN}/spire/agent/x509pop/")), "{id}");
    let nobody = server.command(&["agent", "count"]).await.unwrap();
    assert!(nobody.starts_with('0'), "evidence that is looked at attests nobody: {nobody}");

    let mut run = Command::new(&program.agent);
    let agent =
        Process::start("spire-agent", run.args(["run", "-config"]).arg(&agent_file)).unwrap();
    agent.logged("Starting agent APIs").await.unwrap();
    assert!(verify(&[]).status.success(), "an x509pop agent may attest again");
    server.command(&["agent", "ban", "-spiffeID", &id]).await.unwrap();
    let refused = verify(&[]);
    assert_eq!(refused.status.code(), Some(1));
    let text = told(&refused.stdout);
    assert!(text.contains("FAILED   first use: failed to attest: agent is banned"), "{text}");
    assert_eq!(
        told(&refused.stderr),
        "Error: the node would be refused: failed to attest: agent is banned\n"
    );

    server.process().stop().await.unwrap();
    let before = fs::read(server.data().join("datastore.sqlite3")).unwrap();
    assert_eq!(told(&verify(&[]).stdout), text, "a stopped server says the same");
    assert_eq!(fs::read(server.data().join("datastore.sqlite3")).unwrap(), before);
    fs::write(&evidence, r#"{"type":"x509pop","payload":"e30=","collected_at":"x"}"#).unwrap();
    assert!(told(&verify(&[]).stderr).contains("evidence.json"), "a bad file is named");
}

/// What the server in `folder` says to what its agent there would show.
pub(crate) async fn verify(folder: &Folder) -> Answer {
    let programs = Binaries::find().unwrap();
    let mut collect = Command::new(&programs.agent);
    collect.args(["evidence", "collect", "-nonce", "chosen", "-config"]);
    collect.arg(folder.join("agent.conf"));
    let written = command::run(collect).await.unwrap().success().unwrap();
    fs::write(folder.join("evidence.json"), written).unwrap();
    let mut verify = Command::new(&programs.server);
    verify.args(["evidence", "verify", "-config"]).arg(folder.join("server.conf"));
    verify.arg("-file").arg(folder.join("evidence.json"));
    command::run(verify).await.unwrap()
}

async fn agent_file(folder: &Folder, server: &Server) -> std::path::PathBuf {
    fs::write(folder.join("bootstrap.pem"), server.bundle_pem().await.unwrap()).unwrap();
    let (path, address) = (folder.path().display(), server.address());
    let file = folder.join("agent.conf");
    let text = format!(
        r#"agent {{
    trust_domain = "{TRUST_DOMAIN}"
    server_address = "{}"
    server_port = {}
    trust_bundle_path = "{path}/bootstrap.pem"
    socket_path = "{path}/agent/api.sock"
    data_dir = "{path}/agent"
}}
plugins {{
    KeyManager "memory" {{ plugin_data {{}} }}
    NodeAttestor "x509pop" {{
        plugin_data {{ private_key_path = "{path}/leaf.key", certificate_path = "{path}/leaf.pem" }}
    }}
    WorkloadAttestor "unix" {{ plugin_data {{}} }}
}}
"#,
        address.ip(),
        address.port()
    );
    fs::write(&file, text).unwrap();
    file
}

/// A root and the certificate of a node below it.
fn certificates(folder: &Path) {
    let openssl = |line: &str| {
        printed(Command::new("openssl").current_dir(folder).args(line.split(' ')));
    };
    fs::write(folder.join("leaf.ext"), "keyUsage=critical,digitalSignature\n").unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(&format!("req -x509 {key} -keyout root.key -out root.pem -subj /CN=root -days 2"));
    openssl(&format!("req -new {key} -keyout leaf.key -out leaf.csr -subj /CN=node-1"));
    openssl(
        "x509 -req -in leaf.csr -CA root.pem -CAkey root.key -CAcreateserial -days 2 -extfile \
         leaf.ext -out leaf.pem",
    );
}

fn printed(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "{command:?}: {}", told(&stderr));
    told(&stdout)
}

fn told(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
