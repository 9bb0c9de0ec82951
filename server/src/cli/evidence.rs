//! `evidence`: what this server would say to a node, with no node at hand.

use std::fmt::Write;

use spire_core::catalog;
use spire_core::command::{
    Command, Context, Failure, OUTPUT, Outcome, is_json, parse_json, print, print_json, read_file,
};
use spire_core::flags::{Flag, Values};
use spire_core::node::{self, JOIN_TOKEN, WrittenEvidence};

use crate::attestation::{Verdict, examine};
use crate::config::{self, RunFlags, ServerPlugins};
use crate::plugins::NODE_ATTESTORS;
use crate::store::Store;

pub(super) const COMMANDS: &[Command] = &[Command::new(
    "evidence verify",
    "Runs this server's checks over evidence that spire-agent evidence collect wrote.",
    &[FLAGS, &[OUTPUT]],
    |values| Box::pin(verify(values)),
)
.example("spire-server evidence verify -config conf/server/server.conf -file evidence.json")];

const FLAGS: &[Flag] = &[
    Flag::text("config", "Path of the server's file").default(config::DEFAULT_FILE),
    Flag::bool("expandEnv", "Replace $VARIABLE in the file from the environment"),
    Flag::text("file", "File with the evidence; - is the standard input"),
];

async fn verify(values: Values) -> Outcome {
    let flags = RunFlags {
        config: values.given_text("config").map(Into::into),
        expand_env: values.bool("expandEnv"),
        ..RunFlags::default()
    };
    let path = values.given_text("file").ok_or_else(|| Failure::new("-file is required"))?;
    let evidence: WrittenEvidence = parse_json(&read_file(path)?).context(path)?;
    let config = config::load(&flags)?.config;
    let plugins = ServerPlugins::assign(&config.plugins)?;
    if evidence.kind == JOIN_TOKEN {
        return Err(Failure::new("a join token proves itself by being spent; it is not looked at"));
    }
    let named = plugins.node_attestors.iter().find(|plugin| plugin.name == evidence.kind);
    let named = named.ok_or_else(|| {
        Failure::new(format!("no NodeAttestor {:?} is configured", evidence.kind))
    })?;
    let store = Store::look(&plugins.data_store).await.map_err(|error| error.to_string());
    let host = config::offline_host(&config, store.as_ref().ok()).await;
    let attestor = catalog::load(NODE_ATTESTORS, named, &host)?;

    let verdict = examine(&evidence, attestor, store).await;
    if is_json(&values) {
        print_json(&serde_json::to_value(&verdict)?)?;
    } else {
        print(&pretty(&evidence, &verdict))?;
    }
    match verdict.reason {
        None => Ok(()),
        Some(reason) => Err(Failure::new(format!("the node would be refused: {reason}"))),
    }
}

fn pretty(evidence: &WrittenEvidence, verdict: &Verdict) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<16}: {value}");
    };
    line("Attestor", &evidence.kind);
    line("Collected", &evidence.collected_at.to_string());
    let examination = &verdict.examination;
    if let Some(node) = &examination.claimed {
        line("Node", node);
    }
    for check in &examination.checks {
        let told = match &check.outcome {
            node::Outcome::Passed => format!("passed   {}", check.name),
            node::Outcome::Failed(why) => format!("FAILED   {}: {why}", check.name),
            node::Outcome::Skipped(why) => format!("skipped  {}: {why}", check.name),
        };
        line("Check", &told);
    }
    if let Some(id) = &examination.cloud_request_id {
        line("Cloud request", id);
    }
    if let Some(id) = &verdict.agent_id {
        line("Agent ID", id);
    }
    for selector in &verdict.selectors {
        line("Selector", selector);
    }
    line("Verdict", if verdict.accepted { "accepted" } else { "refused" });
    text
}
