//! The real binary against the sockets of a node whose cache is filled by hand.
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

mod api;
#[path = "../workload_endpoint/node.rs"]
#[allow(dead_code, reason = "the tests of the Workload Endpoint use the rest")]
mod node;
mod operation;
mod watch;

use std::path::Path;
use std::process::Output;

use serde_json::Value;
use spire_core::wire::types;
use tokio::process::Command;

use node::{Authority, Node};

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

/// Runs `spire-agent` with the words of `line`, at this socket.
async fn run(socket: &Path, line: &str) -> Ran {
    let Output { status, stdout, stderr } = command(socket, line).output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: status.code().unwrap(), stdout: text(stdout), stderr: text(stderr) }
}

fn command(socket: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spire-agent"));
    command.args(line.split_whitespace()).env_clear();
    command.env("SPIRE_AGENT_PUBLIC_SOCKET", socket).kill_on_drop(true);
    command
}

/// What is said where nobody listens at `path`.
fn nobody_at(path: impl std::fmt::Display) -> String {
    format!(
        "rpc error: code = Unavailable desc = connection error: desc = \"transport: Error while \
         dialing: dial unix {path}: connect: no such file or directory\"\n"
    )
}

/// An entry for `spiffe://example.org<path>` that every process earns.
fn entry(path: &str) -> types::Entry {
    let id = |path: &str| {
        Some(types::Spiffeid { trust_domain: "example.org".into(), path: path.into() })
    };
    types::Entry {
        id: path.trim_start_matches('/').to_owned(),
        spiffe_id: id(path),
        parent_id: id("/spire/agent/x"),
        selectors: vec![types::Selector { r#type: "test".into(), value: "any".into() }],
        ..types::Entry::default()
    }
}

/// A node with one identity, `/app` with a hint, which federates with `partner.test`.
async fn node_with_a_partner() -> Node {
    let node = Node::start().await;
    node.federate([Authority::new("partner.test").await.bundle()]);
    let federates_with = vec!["partner.test".to_owned()];
    node.authorize([types::Entry { hint: "external".into(), federates_with, ..entry("/app") }])
        .await;
    node
}

/// The names of a JSON object's members, in their order.
#[track_caller]
fn members(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}
