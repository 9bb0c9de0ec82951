//! `agent ban`, `agent evict` and `agent purge`.

use std::fmt::Write;

use jiff::Timestamp;
use serde::Serialize;
use spire_core::command::{Context, Failure, Outcome, answer, is_json, print, print_json};
use spire_core::flags::Values;
use spire_core::wire::agent::agent_client::AgentClient;
use spire_core::wire::agent::{BanAgentRequest, DeleteAgentRequest, list_agents_request};

use super::show::{all, given_id};
use crate::cli::SOCKET;
use crate::cli::values::id_text;

pub(super) async fn ban(values: Values) -> Outcome {
    let id = Some(given_id(&values)?);
    let mut client = AgentClient::new(SOCKET.channel(&values)?);
    client.ban_agent(BanAgentRequest { id }).await?;
    answer(&values, &(), || "Agent banned successfully\n".to_owned())
}

pub(super) async fn evict(values: Values) -> Outcome {
    let id = Some(given_id(&values)?);
    let mut client = AgentClient::new(SOCKET.channel(&values)?);
    client.delete_agent(DeleteAgentRequest { id }).await?;
    answer(&values, &(), || "Agent evicted successfully\n".to_owned())
}

/// What `agent purge` found, as its JSON shows it.
#[derive(Serialize)]
struct Purged {
    expired_agents: Vec<Expired>,
}

#[derive(Serialize)]
struct Expired {
    agent_id: String,
    deleted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub(super) async fn purge(values: Values) -> Outcome {
    let mut client = AgentClient::new(SOCKET.channel(&values)?);
    let filter = list_agents_request::Filter { by_can_reattest: Some(true), ..Default::default() };
    let agents = all(&mut client, filter).await.context("failed to list agents")?;
    let expired_for = i64::try_from(values.duration("expiredFor").as_secs()).unwrap_or(i64::MAX);
    let latest = Timestamp::now().as_second().saturating_sub(expired_for);
    let mut purged = Purged { expired_agents: Vec::new() };
    for agent in agents.into_iter().filter(|agent| agent.x509svid_expires_at < latest) {
        let agent_id = id_text(agent.id.as_ref());
        let mut expired = Expired { agent_id, deleted: false, error: None };
        if !values.bool("dryRun") {
            match client.delete_agent(DeleteAgentRequest { id: agent.id }).await {
                Ok(_) => expired.deleted = true,
                Err(status) => expired.error = Some(Failure::from(status).to_string()),
            }
        }
        purged.expired_agents.push(expired);
    }
    if is_json(&values) {
        return print_json(&serde_json::to_value(&purged)?);
    }
    print(&report(&purged.expired_agents, values.bool("dryRun")))
}

fn report(agents: &[Expired], dry_run: bool) -> String {
    let mut text = match agents.len() {
        0 => return "No agents to purge.\n".to_owned(),
        1 => "Found 1 expired agent\n\n".to_owned(),
        count => format!("Found {count} expired agents\n\n"),
    };
    let mut list = |title: &str, belongs: &dyn Fn(&&Expired) -> bool| {
        let mut agents = agents.iter().filter(belongs).peekable();
        if agents.peek().is_some() {
            let _ = writeln!(text, "{title}");
        }
        for agent in agents {
            let _ = writeln!(text, "SPIFFE ID         : {}", agent.agent_id);
            if let Some(error) = &agent.error {
                let _ = writeln!(text, "Error             : {error}");
            }
        }
    };
    if dry_run {
        list("\nAgents that can be purged:", &|_| true);
    } else {
        list("Agents purged:", &|agent| agent.deleted);
        list("Agents not purged:", &|agent| !agent.deleted);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_tells_purged_agents_from_those_that_are_not() {
        let agent = |agent_id: &str, error: Option<&str>| Expired {
            agent_id: agent_id.to_owned(),
            deleted: error.is_none(),
            error: error.map(ToOwned::to_owned),
        };
        assert_eq!(report(&[], false), "No agents to purge.\n");
        assert_eq!(
            report(&[agent("a", None), agent("b", Some("no"))], false),
            "Found 2 expired agents\n\nAgents purged:\nSPIFFE ID         : a\nAgents not purged:\n\
             SPIFFE ID         : b\nError             : no\n"
        );
        assert_eq!(
            report(&[agent("a", None)], true),
            "Found 1 expired agent\n\n\nAgents that can be purged:\nSPIFFE ID         : a\n"
        );
    }
}
