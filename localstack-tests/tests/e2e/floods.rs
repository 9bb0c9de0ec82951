//! Slow and flooding clients on every socket: others are served, memory stays bounded, and the
//! programs live.

use std::future::Future;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use futures::stream;
use spire_core::process::raise_open_files;
use spire_core::wire::agent::AttestAgentRequest;
use spire_core::wire::agent::agent_client::AgentClient;
use spire_core::wire::agent::attest_agent_request::{Params, Step};
use spire_core::wire::bundle::GetBundleRequest;
use spire_core::wire::bundle::bundle_client::BundleClient;
use spire_core::wire::types::AttestationData;
use spire_localstack_tests::binaries::Binaries;
use spire_localstack_tests::hostile::{Attack, Siege};
use spire_localstack_tests::load::resident;
use spire_localstack_tests::remote::Stranger;
use spire_localstack_tests::server::{agent_path, entry};
use spire_localstack_tests::user::User;
use spire_localstack_tests::{Agent, AgentFile, Folder, Server, ServerFile};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tonic::Code;

const GET_BUNDLE: &str = "/spire.api.server.bundle.v1.Bundle/GetBundle";
const ATTEST: &str = "/spire.api.server.agent.v1.Agent/AttestAgent";
const LIST_ENTRIES: &str = "/spire.api.server.entry.v1.Entry/ListEntries";
const FETCH: &str = "/SpiffeWorkloadAPI/FetchX509SVID";
const VALIDATE: &str = "/SpiffeWorkloadAPI/ValidateJWTSVID";
const GET_INFO: &str = "/spire.agent.debug.v1.Debug/GetInfo";

/// Calls that are made while others attack.
const CALLS: usize = 10;
/// Within this time most of them are answered, on a machine that does other things besides.
const SOON: Duration = Duration::from_secs(1);
const AT_LAST: Duration = Duration::from_secs(20);
/// How soon a connection on which a flood comes is ended.
const ENDED: Duration = Duration::from_secs(30);

/// Connections of each kind of hostile client.
const CLIENTS: usize = 8;
/// What all of them together may cost, far below what they try to send.
const MEMORY: u64 = 192 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_servers_port_serves_others_whatever_one_address_does() {
    raise_open_files();
    let folder = Folder::new().unwrap();
    let mut server = Server::start(&folder, &ServerFile::default()).await.unwrap();
    let id = server.process().id();
    let (hostile, other) = (Stranger::new(2, server.address()), Stranger::new(3, server.address()));
    let before = resident(id).unwrap();

    let siege = Siege::new().unwrap();
    for attack in Attack::ALL {
        for path in [GET_BUNDLE, ATTEST] {
            let hostile = hostile.clone();
            siege.add(CLIENTS / 2, attack, path, move || {
                let hostile = hostile.clone();
                async move { hostile.greet().await }
            });
        }
    }
    // Half handshakes: more than one address may hold.
    let mut half = Vec::new();
    for number in 0..2000 {
        let Ok(mut stream) = hostile.connect().await else { break };
        if number % 2 == 0 {
            // One that is closed already is none the worse.
            let _ = stream.write_all(b"\x16\x03\x01").await;
        }
        half.push(stream);
    }
    assert_eq!(half.len(), 2000);
    served(|| async {
        let mut bundles = BundleClient::new(other.channel().await?);
        Ok(bundles.get_bundle(GetBundleRequest::default()).await.map(drop)?)
    })
    .await;
    bounded(id, before);
    drop((siege, half));
    server.process().stop().await.unwrap();
}

#[tokio::test]
async fn floods_end_with_their_connection() {
    let folder = Folder::new().unwrap();
    let server = Server::start(&folder, &ServerFile::default()).await.unwrap();
    let stranger = Stranger::new(2, server.address());
    for attack in [Attack::EndlessHeaders, Attack::Resets] {
        let flooded = attack.carry_out(stranger.greet().await.unwrap(), GET_BUNDLE);
        let ended = tokio::time::timeout(ENDED, flooded).await;
        assert!(ended.is_ok_and(|ended| ended.is_err()), "{attack:?} goes on");
    }
}

#[tokio::test]
async fn strangers_may_send_little() {
    let folder = Folder::new().unwrap();
    let server = Server::start(&folder, &ServerFile::default()).await.unwrap();
    let channel = Stranger::new(2, server.address()).channel().await.unwrap();
    let attest = async |bytes: usize| {
        let data = AttestationData { r#type: "x".into(), payload: Bytes::from(vec![0; bytes]) };
        let step = Step::Params(Params { data: Some(data), params: None });
        let request = AttestAgentRequest { step: Some(step) };
        let mut agents = AgentClient::new(channel.clone());
        let mut answers = agents.attest_agent(stream::iter([request])).await.unwrap().into_inner();
        answers.message().await.unwrap_err()
    };
    // The rate limit lets one pass at a time: these are few.
    assert_eq!(attest(1000).await.code(), Code::InvalidArgument);
    for bytes in [2 << 20, 5 << 20] {
        let status = attest(bytes).await;
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        assert!(status.message().contains("larger than max"), "{status:?}");
    }
    BundleClient::new(channel.clone()).get_bundle(GetBundleRequest::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_servers_admin_socket_serves_others_whatever_one_process_does() {
    raise_open_files();
    let folder = Folder::new().unwrap();
    let mut server = Server::start(&folder, &ServerFile::default()).await.unwrap();
    let selector = format!("unix:user:{}", "x".repeat(1000));
    for number in 0..10 {
        let entry = entry("/spire/server", &format!("/{number}"), &selector);
        server.create_entry(entry).await.unwrap();
    }
    let id = server.process().id();
    let before = resident(id).unwrap();
    let siege = besiege(server.socket(), &attacks_of_operators(), &[LIST_ENTRIES]);
    let held = held(server.socket(), 2000).await;
    served(|| async { server.command(&["entry", "count"]).await.map(drop) }).await;
    bounded(id, before);
    drop((siege, held));
    server.process().stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agents_sockets_serve_others_whatever_one_process_or_one_user_does() {
    raise_open_files();
    let folder = Folder::new().unwrap();
    let server = Server::start(&folder, &ServerFile::default()).await.unwrap();
    let token = server.join_token().await.unwrap();
    let user = format!("unix:uid:{}", User::current().uid);
    for number in 0..20 {
        let entry = entry(&agent_path(&token), &format!("/{number}"), &user);
        server.create_entry(entry).await.unwrap();
    }
    let admin = folder.join("admin.sock");
    let file =
        AgentFile { agent: format!("admin_socket_path = {admin:?}"), ..AgentFile::default() };
    let mut agent = Agent::start(&folder, &server, &token, &file).await.unwrap();
    let socket = agent.socket().to_owned();
    let program = &Binaries::find().unwrap().agent;
    let fetch = || ask(program, &["api", "fetch", "x509", "-timeout", "20s"], &socket);
    let info = || ask(program, &["debug", "getinfo"], &admin);
    until_served(&fetch).await;

    let id = agent.process().id();
    let before = resident(id).unwrap();
    let siege = besiege(&socket, &Attack::ALL, &[FETCH, VALIDATE]);
    let siege_of_operators = besiege(&admin, &attacks_of_operators(), &[GET_INFO]);
    let many = (held(&socket, 2000).await, held(&admin, 2000).await);
    served(fetch).await;
    served(info).await;
    bounded(id, before);
    drop((siege, siege_of_operators, many));

    // Ten processes of one user, each below what a process may hold.
    let other = User::other().unwrap();
    let holders: Vec<_> = (0..10).map(|_| Holder::start(other, &socket, 900)).collect();
    let asked = Holder::start(other, &socket, 1);
    agent.process().logged("Connection refused: this process or its user").await.unwrap();
    served(fetch).await;
    bounded(id, before);
    drop((holders, asked));
    agent.process().stop().await.unwrap();
}

/// Whoever may open an admin socket may send large messages: to hold many is their right.
fn attacks_of_operators() -> Vec<Attack> {
    Attack::ALL.into_iter().filter(|attack| *attack != Attack::HalfMessages).collect()
}

/// Hostile clients at a Unix socket.
fn besiege(socket: &Path, attacks: &[Attack], paths: &[&'static str]) -> Siege {
    let siege = Siege::new().unwrap();
    for &attack in attacks {
        for &path in paths {
            let socket = socket.to_owned();
            siege.add(CLIENTS / paths.len(), attack, path, move || {
                UnixStream::connect(socket.clone())
            });
        }
    }
    siege
}

/// So many connections at once, more than a process may have; the rest is closed by the program.
async fn held(socket: &Path, count: usize) -> Vec<UnixStream> {
    let mut held = Vec::new();
    for _ in 0..count {
        held.push(UnixStream::connect(socket).await.unwrap());
    }
    held
}

/// Calls one after the other: each is answered, and most of them soon.
async fn served<F: Future<Output = anyhow::Result<()>>>(call: impl Fn() -> F) {
    let mut times = Vec::new();
    for _ in 0..CALLS {
        let began = Instant::now();
        let answer = tokio::time::timeout(AT_LAST, call()).await;
        answer.expect("an answer at last").unwrap();
        times.push(began.elapsed());
    }
    times.sort_unstable();
    assert!(times[CALLS / 2] < SOON, "others wait: {times:?}");
}

async fn until_served<F: Future<Output = anyhow::Result<()>>>(call: impl Fn() -> F) {
    let began = Instant::now();
    while let Err(error) = call().await {
        assert!(began.elapsed() < AT_LAST, "{error:#}");
    }
}

#[track_caller]
fn bounded(id: u32, before: u64) {
    let grown = resident(id).unwrap().saturating_sub(before);
    assert!(grown < MEMORY, "memory grew by {} MiB", grown >> 20);
}

/// A command of an operator or a workload, as a process of its own.
async fn ask(program: &Path, words: &[&str], socket: &Path) -> anyhow::Result<()> {
    let mut command = User::current().command(program)?;
    command.args(words).arg("-socketPath").arg(socket);
    let output = tokio::process::Command::from(command).output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{words:?}: {said}");
    Ok(())
}

/// A process of some user that holds connections.
struct Holder(Child);

impl Holder {
    fn start(user: User, socket: &Path, count: usize) -> Self {
        let script = "import socket, sys
held = []
for _ in range(int(sys.argv[2])):
    one = socket.socket(socket.AF_UNIX)
    one.connect(sys.argv[1])
    held.append(one)
print('held', flush=True)
sys.stdin.read()";
        let python = PathBuf::from("/usr/bin/python3");
        let mut command: Command = user.command(&python).unwrap();
        command.args(["-c", script]).arg(socket).arg(count.to_string());
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.context("python3 runs (apt-get install python3)").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 4]).unwrap();
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may have ended
        let _ = self.0.wait();
    }
}
