//! What a process makes of its surroundings: files that stay closed although its umask is open, and
//! signals that have it read settings anew and open its log anew.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use spire_localstack_tests::binaries::Binaries;
use spire_localstack_tests::process::PATIENCE;
use spire_localstack_tests::user::User;
use spire_localstack_tests::{Agent, AgentFile, Folder, Process, Server, ServerFile};

const TOO_PERMISSIVE: &str = "level=warning msg=\"Current umask 0000 is too permissive; setting \
                              umask 0027\"";

/// Runs `program` with its file, and a log in a file, under an umask that closes nothing.
fn run(name: &str, program: &Path, file: &Path, log: &Path, more: &[&str]) -> Process {
    let mut command = User::current().command(Path::new("/bin/sh")).unwrap();
    command.args(["-c", "umask 0 && exec \"$@\"", "sh"]).arg(program);
    command.args(["run", "-config"]).arg(file).arg("-logFile").arg(log).args(more);
    Process::start(name, &mut command).unwrap()
}

/// Waits until the log in a file has a line with all `parts`.
async fn written(log: &Path, parts: &[&str]) {
    let began = Instant::now();
    loop {
        let text = fs::read_to_string(log).unwrap_or_default();
        if text.lines().any(|line| parts.iter().all(|part| line.contains(part))) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{parts:?} is not in {}: {text}", log.display());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn mode(path: &Path) -> String {
    format!("{:04o}", fs::metadata(path).unwrap().permissions().mode() & 0o7777)
}

/// Has the process read its plugin's settings anew, and opens its log anew after a rotation.
async fn signals_are_heard(process: &Process, log: &Path, plugin: &str) {
    process.signal(Signal::USR1).unwrap();
    let plugin = format!("plugin_name={plugin}");
    written(log, &["msg=\"Plugin reconfigured\"", &plugin]).await;
    let rotated = log.with_extension("1");
    fs::rename(log, &rotated).unwrap();
    process.signal(Signal::USR2).unwrap();
    written(log, &["msg=\"Log file reopened\""]).await;
    assert_eq!(mode(log), "0640");
    assert!(!fs::read_to_string(rotated).unwrap().contains("Log file reopened"));
}

#[tokio::test]
async fn files_are_closed_under_an_open_umask_and_signals_are_heard() {
    let folder = Folder::new().unwrap();
    let settings = folder.join("x509pop.conf");
    fs::write(&settings, "mode = \"spiffe\"").unwrap();
    let plugins = format!("NodeAttestor \"x509pop\" {{ plugin_data_file = {settings:?} }}");
    let file = ServerFile { plugins, ..ServerFile::default() };
    let mut server = Server::start(&folder, &file).await.unwrap();
    server.process().stop().await.unwrap();
    assert!(server.process().log().contains("msg=\"Server stopped gracefully\""));
    // The folder was made by the harness, what is in it under another umask.
    fs::remove_dir_all(server.data()).unwrap();

    let binaries = Binaries::find().unwrap();
    let log = folder.join("server.log");
    let mut process = run("spire-server", &binaries.server, &folder.join("server.conf"), &log, &[]);
    written(&log, &["msg=\"Starting Server APIs\"", "network=unix"]).await;
    written(&log, &[TOO_PERMISSIVE]).await;
    let data = server.data();
    assert_eq!(mode(data), "0750");
    assert_eq!(mode(&data.join("datastore.sqlite3")), "0600");
    assert_eq!(mode(&data.join("keys.json")), "0600");
    assert_eq!(mode(server.socket()), "0770");
    assert_eq!(mode(&log), "0640");
    signals_are_heard(&process, &log, "x509pop").await;

    let settings = folder.join("unix.conf");
    fs::write(&settings, "").unwrap();
    let file = Agent::write_file(&folder, &server, &AgentFile::default()).await.unwrap();
    let text = fs::read_to_string(&file).unwrap();
    let settings = format!("plugin_data_file = {settings:?}");
    fs::write(&file, text.replace("plugin_data {  }", &settings)).unwrap();
    let token = server.join_token().await.unwrap();
    let agent_log = folder.join("agent.log");
    let flags = ["-joinToken", token.as_str()];
    let mut agent = run("spire-agent", &binaries.agent, &file, &agent_log, &flags);
    written(&agent_log, &["msg=\"Starting agent APIs\""]).await;
    written(&agent_log, &[TOO_PERMISSIVE]).await;
    let data = folder.join("agent/data");
    assert_eq!(mode(&data), "0750");
    assert_eq!(mode(&data.join("agent-data.json")), "0600");
    assert_eq!(mode(&data.join("keys.json")), "0600");
    // Every workload may ask.
    assert_eq!(mode(&folder.join("agent/public")), "0755");
    assert_eq!(mode(&folder.join("agent/public/api.sock")), "0777");
    signals_are_heard(&agent, &agent_log, "unix").await;

    agent.stop().await.unwrap();
    written(&agent_log, &["msg=\"Agent stopped gracefully\""]).await;
    process.stop().await.unwrap();
    written(&log, &["msg=\"Server stopped gracefully\""]).await;
}
