//! The real binary against a whole server over its admin socket.
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

#[path = "../harness/mod.rs"]
mod harness;

mod agent;
mod authority;
mod bundle;
mod data;
mod datastore;
mod datastore_check;
mod entry;
mod mint;
mod operation;
mod program;
mod token;

use std::path::Path;
use std::process::Stdio;

use harness::TestServer;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// What became of a command.
#[derive(Debug)]
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ran {
    /// What it printed, where it went well.
    #[track_caller]
    fn printed(self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (0, ""), "{self:?}");
        self.stdout
    }

    /// What it printed as JSON, where it went well.
    #[track_caller]
    fn json(self) -> Value {
        let text = self.printed();
        assert!(text.ends_with('\n') && text.lines().count() == 1, "{text:?}");
        serde_json::from_str(&text).unwrap()
    }

    /// What it told on the standard error, where it failed and printed nothing.
    #[track_caller]
    fn told(self) -> String {
        assert_eq!((self.code, self.stdout.as_str()), (1, ""), "{self:?}");
        self.stderr
    }
}

/// Runs `spire-server` with the words of `line`, at the server's socket.
async fn run(server: &TestServer, line: &str) -> Ran {
    run_at(&server.socket, line).await
}

/// Runs `spire-server` with the words of `line`, at this socket.
async fn run_at(socket: &Path, line: &str) -> Ran {
    run_words(socket, &Vec::from_iter(line.split_whitespace()), b"").await
}

/// Runs `spire-server` with these words, at this socket, with this on its standard input.
async fn run_words(socket: &Path, words: &[&str], input: &[u8]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spire-server"));
    command.args(words).env_clear().env("TZ", "UTC").env("SPIRE_SERVER_PRIVATE_SOCKET", socket);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let write = async move {
        // A command that does not read its input is none the worse for it.
        let _ = stdin.write_all(input).await;
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), write);
    let output = output.unwrap();
    Ran {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// As [`run`], with `input` on the standard input.
async fn run_with_input(server: &TestServer, line: &str, input: &str) -> Ran {
    run_words(&server.socket, &Vec::from_iter(line.split_whitespace()), input.as_bytes()).await
}

/// What OpenSSL prints, where it went well.
#[track_caller]
fn openssl(arguments: &str) -> String {
    let output = std::process::Command::new("openssl").args(arguments.split(' ')).output();
    let output = output.expect("openssl is part of a test machine");
    assert!(output.status.success(), "{arguments}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The names of a JSON object's members, in their order.
#[track_caller]
fn members(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

async fn server() -> TestServer {
    TestServer::start("").await
}
