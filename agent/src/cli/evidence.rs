//! `evidence`: what this node would show a server.

use std::sync::Arc;

use spire_core::bundle::Bundle;
use spire_core::catalog::{self, Host};
use spire_core::clock::Clock;
use spire_core::command::{Command, Outcome, print_json};
use spire_core::flags::{Flag, Values};
use spire_core::node::WrittenEvidence;
use tokio::sync::watch;

use crate::config::{self, AgentPlugins, RunFlags};
use crate::plugins::{EVIDENCE_SOURCES, of_join_token};

pub(super) const COMMANDS: &[Command] = &[Command::new(
    "evidence collect",
    "Writes what this node would send a server, for spire-server evidence verify.",
    &[FLAGS],
    |values| Box::pin(collect(values)),
)
.example("spire-agent evidence collect -config conf/agent/agent.conf > evidence.json")];

const FLAGS: &[Flag] = &[
    Flag::text("config", "Path of the agent's file").default(config::DEFAULT_FILE),
    Flag::bool("expandEnv", "Expand environment variables in the file"),
    Flag::text("nonce", "What a server would challenge the node with, where the attestor uses it"),
];

async fn collect(values: Values) -> Outcome {
    let flags = RunFlags {
        config: values.given_text("config").map(Into::into),
        expand_env: values.bool("expandEnv"),
        ..RunFlags::default()
    };
    let config = config::load(&flags)?.config;
    let plugins = AgentPlugins::assign(&config.plugins)?;
    let clock = Clock::system();
    let (_, bundle) = watch::channel(Arc::new(Bundle::empty(config.trust_domain.clone())));
    let host = Host { trust_domain: config.trust_domain.clone(), bundle, clock: clock.clone() };
    let (kind, source) = match config.join_token.as_ref().and_then(of_join_token) {
        Some((kind, source)) => (kind.to_owned(), source),
        None => {
            let named = &plugins.node_attestor;
            (named.name.clone(), catalog::load(EVIDENCE_SOURCES, named, &host)?)
        }
    };
    let mut evidence = source.collect().await?;
    let payload = evidence.exhibit(values.given_text("nonce")).await?;
    let written = WrittenEvidence { kind, payload, collected_at: clock.now() };
    print_json(&serde_json::to_value(&written)?)
}
