//! Files that an agent cannot use: it says which and why, and harms none.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use http::StatusCode;
use spire_fakes::http::{self as web, HttpServer};
use spire_fakes::tls::TlsFront;
use spire_localstack_tests::binaries::Binaries;
use spire_localstack_tests::user::User;
use spire_localstack_tests::{
    Agent, AgentFile, Folder, Process, Server, ServerFile, command, disk,
};

/// A server, and the file of an agent that has not run yet.
struct Node {
    folder: Folder,
    server: Server,
    file: PathBuf,
}

impl Node {
    async fn new() -> Self {
        let folder = Folder::new().unwrap();
        let server = Server::start(&folder, &ServerFile::default()).await.unwrap();
        let file = Agent::write_file(&folder, &server, &AgentFile::default()).await.unwrap();
        Self { folder, server, file }
    }

    fn data(&self) -> PathBuf {
        self.folder.join("agent/data")
    }

    fn run(&self, mut program: Command, flags: &[&str]) -> Process {
        program.args(["run", "-config"]).arg(&self.file).args(flags);
        Process::start("spire-agent", &mut program).unwrap()
    }
}

fn program() -> Command {
    User::current().command(&Binaries::find().unwrap().agent).unwrap()
}

/// What a log says, without the marks before quotes.
fn plain(log: &str) -> String {
    log.replace("\\\"", "\"")
}

/// The agent ends with code 1, and the last line says why.
async fn crashes(mut agent: Process, why: &str) {
    let status = agent.ended().await.unwrap();
    let log = plain(&agent.log());
    let last = log.lines().last().unwrap();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(last.contains("Agent crashed") && last.contains(why), "{why:?} is not in {last}");
}

#[tokio::test]
async fn damaged_files_are_named_and_left_as_they_are() {
    let node = Node::new().await;
    let storage = "failed to open storage: failed to unmarshal data: ";
    let keys = "failed to configure plugin \"disk\": rpc error: code = Internal desc = unable to \
                decode keys JSON: ";
    let cut = "unexpected end of JSON input";
    fs::create_dir_all(node.data()).unwrap();
    for (name, content, why) in [
        ("agent-data.json", "", format!("{storage}{cut}")),
        ("agent-data.json", "{\"svid\":", format!("{storage}{cut}")),
        ("agent-data.json", "[1]", storage.to_owned()),
        ("agent-data.json", "{\"svid\":[\"####\"]}", storage.to_owned()),
        ("keys.json", "", format!("{keys}{cut}")),
        (
            "keys.json",
            "{\"keys\":{\"agent-svid-A\":\"YWJj\"}}",
            format!("{keys}key \"agent-svid-A\": "),
        ),
    ] {
        let path = node.data().join(name);
        fs::write(&path, content).unwrap();
        crashes(node.run(program(), &["-joinToken", "never-used"]), &why).await;
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
        fs::remove_file(&path).unwrap();
    }
}

#[tokio::test]
async fn a_data_folder_that_is_none_is_named() {
    let node = Node::new().await;
    fs::create_dir_all(node.data().parent().unwrap()).unwrap();
    fs::write(node.data(), "a file").unwrap();
    let why = format!("mkdir {}: file exists", node.data().display());
    crashes(node.run(program(), &["-joinToken", "never-used"]), &why).await;
    assert_eq!(fs::read_to_string(node.data()).unwrap(), "a file");
}

#[tokio::test]
async fn a_data_folder_that_cannot_be_written_is_named() {
    let node = Node::new().await;
    fs::create_dir_all(node.data()).unwrap();
    let token = node.server.join_token().await.unwrap();
    let agent = disk::own(&Binaries::find().unwrap().agent, &node.data(), "ro").unwrap();
    let why = "keys.json.tmp: read-only file system";
    crashes(node.run(agent, &["-joinToken", &token]), why).await;
    // The server was not asked: the token is still good.
    let agent = node.run(program(), &["-joinToken", &token]);
    agent.logged("Starting agent APIs").await.unwrap();
}

#[tokio::test]
async fn an_agent_whose_disk_is_full_waits_for_room_and_its_token_stays_good() {
    let node = Node::new().await;
    fs::create_dir_all(node.data()).unwrap();
    let token = node.server.join_token().await.unwrap();
    // One page: room for the keys and no more.
    let agent = disk::own(&Binaries::find().unwrap().agent, &node.data(), "size=4k").unwrap();
    let agent = node.run(agent, &["-joinToken", &token]);
    let line = agent.logged("Failed to retrieve attestation result").await.unwrap();
    assert!(line.contains("failed to write storage: "), "{line}");
    assert!(line.contains("agent-data.json.tmp: no space left on device"), "{line}");

    let larger = disk::change(agent.id(), &node.data(), "size=1m");
    command::run(larger).await.unwrap().success().unwrap();
    agent.logged("Starting agent APIs").await.unwrap();
}

#[tokio::test]
async fn a_bundle_that_cannot_be_read_is_named_and_asked_for_again() {
    let node = Node::new().await;
    let bundle = node.folder.join("bootstrap.pem");
    let good = fs::read(&bundle).unwrap();
    fs::remove_file(&bundle).unwrap();
    let token = node.server.join_token().await.unwrap();
    let agent = node.run(program(), &["-joinToken", &token]);
    let missing = format!(
        "could not parse trust bundle: open {}: no such file or directory",
        bundle.display()
    );
    agent.logged(&missing).await.unwrap();
    write_whole(&bundle, b"no certificate");
    agent.logged("could not parse trust bundle: no PEM blocks").await.unwrap();
    write_whole(&bundle, &good);
    agent.logged("Starting agent APIs").await.unwrap();
}

#[tokio::test]
async fn a_bundle_comes_from_a_web_server_that_the_machine_trusts_and_from_no_other() {
    let node = Node::new().await;
    let bundle = node.folder.join("bootstrap.pem");
    let pem = fs::read(&bundle).unwrap();
    let server = HttpServer::start(move |_| web::text(StatusCode::OK, pem.clone())).await;
    let front = TlsFront::to(&server).await;
    let url = format!("{}/bundle.pem", front.url());
    let text = fs::read_to_string(&node.file).unwrap();
    let (from_file, from_web) =
        (format!("trust_bundle_path = {bundle:?}"), format!("trust_bundle_url = {url:?}"));
    fs::write(&node.file, text.replace(&from_file, &from_web)).unwrap();
    let authority = node.folder.join("web.pem");
    fs::write(&authority, front.authority()).unwrap();

    let token = node.server.join_token().await.unwrap();
    let stranger = node.run(program(), &["-joinToken", &token]);
    let line = stranger.logged("Failed to retrieve attestation result").await.unwrap();
    assert!(line.contains(&format!("unable to fetch trust bundle URL {url}: ")), "{line}");
    assert_eq!(server.count(), 0);
    drop(stranger);

    let mut trusting = program();
    trusting.env("SSL_CERT_FILE", authority);
    let agent = node.run(trusting, &["-joinToken", &token]);
    agent.logged("Starting agent APIs").await.unwrap();
    let asked = server.requests();
    assert_eq!((asked.len(), &*asked[0].path, &*asked[0].query), (1, "/bundle.pem", ""));
}

/// The agent may be reading.
fn write_whole(path: &Path, content: &[u8]) {
    let beside = path.with_extension("new");
    fs::write(&beside, content).unwrap();
    fs::rename(beside, path).unwrap();
}

#[tokio::test]
async fn a_token_that_the_server_does_not_know_is_refused_and_not_shown() {
    let node = Node::new().await;
    let agent = node.run(program(), &["-joinToken", "some-unknown-token"]);
    let line = agent.logged("Failed to retrieve attestation result").await.unwrap();
    let refused = "failed to attest: join token does not exist or has already been used";
    assert!(line.contains(refused), "{line}");
    assert!(!agent.log().contains("some-unknown-token"), "{}", agent.log());
}

#[tokio::test]
async fn a_server_of_another_trust_domain_is_told_by_name() {
    let node = Node::new().await;
    let flags = ["-joinToken", "never-used", "-trustDomain", "other.test"];
    let agent = node.run(program(), &flags);
    let line = agent.logged("Failed to retrieve attestation result").await.unwrap();
    for id in ["spiffe://example.org/spire/server", "spiffe://other.test/spire/server"] {
        assert!(line.contains(id), "{id} is not in {line}");
    }
}
