//! `agent list`, `agent count` and `agent show`.

use std::fmt::Write;

use spire_core::command::{Context, Failure, Outcome, answer, local_time};
use spire_core::flags::Values;
use spire_core::wire::agent::agent_client::AgentClient;
use spire_core::wire::agent::{
    CountAgentsRequest, GetAgentRequest, ListAgentsRequest, ListAgentsResponse,
    count_agents_request, list_agents_request,
};
use spire_core::wire::types::{Agent, AgentMask, SelectorMatch};
use tonic::transport::Channel;

use crate::api::agent::parse_expires_before;
use crate::cli::SOCKET;
use crate::cli::values::{id_text, match_behavior, selector, spiffe_id};

const PAGE: i32 = 1000;

/// All but the selectors, which `agent show` shows.
const LISTED_FIELDS: AgentMask = AgentMask {
    attestation_type: true,
    x509svid_serial_number: true,
    x509svid_expires_at: true,
    selectors: false,
    banned: true,
    can_reattest: true,
    agent_version: true,
};

pub(super) async fn list(values: Values) -> Outcome {
    let filter = filter(&values)?;
    let agents = all(&mut AgentClient::new(SOCKET.channel(&values)?), filter).await?;
    let listed = ListAgentsResponse { agents, next_page_token: String::new() };
    answer(&values, &listed, || {
        let blocks: String = listed.agents.iter().map(block).collect();
        match listed.agents.len() {
            0 => "No attested agents found\n".to_owned(),
            1 => format!("Found 1 attested agent:\n\n{blocks}"),
            count => format!("Found {count} attested agents:\n\n{blocks}"),
        }
    })
}

/// All agents that fit `filter`, page by page.
pub(super) async fn all(
    client: &mut AgentClient<Channel>,
    filter: list_agents_request::Filter,
) -> Result<Vec<Agent>, tonic::Status> {
    let mut request = ListAgentsRequest {
        filter: Some(filter),
        output_mask: Some(LISTED_FIELDS),
        page_size: PAGE,
        page_token: String::new(),
    };
    let mut agents = Vec::new();
    loop {
        let page = client.list_agents(request.clone()).await?.into_inner();
        agents.extend(page.agents);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return Ok(agents);
        }
    }
}

pub(super) async fn count(values: Values) -> Outcome {
    let filter = filter(&values)?;
    let filter = count_agents_request::Filter {
        by_attestation_type: filter.by_attestation_type,
        by_selector_match: filter.by_selector_match,
        by_banned: filter.by_banned,
        by_can_reattest: filter.by_can_reattest,
        by_expires_before: filter.by_expires_before,
    };
    let request = CountAgentsRequest { filter: Some(filter) };
    let mut client = AgentClient::new(SOCKET.channel(&values)?);
    let counted = client.count_agents(request).await?.into_inner();
    answer(&values, &counted, || {
        let what = if counted.count == 1 { "agent" } else { "agents" };
        format!("{} attested {what}\n", counted.count)
    })
}

pub(super) async fn show(values: Values) -> Outcome {
    let id = given_id(&values)?;
    let mut client = AgentClient::new(SOCKET.channel(&values)?);
    let request = GetAgentRequest { id: Some(id), output_mask: None };
    let agent = client.get_agent(request).await?.into_inner();
    answer(&values, &agent, || {
        let mut text = format!("Found an attested agent given its SPIFFE ID\n\n{}", block(&agent));
        for selector in &agent.selectors {
            let _ = writeln!(text, "Selectors         : {}:{}", selector.r#type, selector.value);
        }
        text
    })
}

/// The agent that `-spiffeID` names.
pub(super) fn given_id(values: &Values) -> Result<spire_core::wire::types::Spiffeid, Failure> {
    let id = values.given_text("spiffeID");
    let id = id.ok_or_else(|| Failure::new("a SPIFFE ID is required"))?;
    Ok((&spiffe_id("spiffeID", id)?).into())
}

fn filter(values: &Values) -> Result<list_agents_request::Filter, Failure> {
    let mut by_selector_match = None;
    let texts = values.list("selector");
    if !texts.is_empty() {
        let behavior = match_behavior(values.text("matchSelectorsOn"));
        let r#match = behavior.ok_or_else(|| Failure::new("unsupported match behavior"))?.into();
        let selectors = texts
            .iter()
            .map(|text| selector(text).context(format_args!("error parsing selector {text:?}")));
        let selectors = selectors.collect::<Result<_, _>>()?;
        by_selector_match = Some(SelectorMatch { selectors, r#match });
    }
    let expires_before = values.text("expiresBefore");
    if !expires_before.is_empty() && parse_expires_before(expires_before).is_none() {
        let form = "2006-01-02 15:04:05 -0700 -07";
        return Err(Failure::new(format!(
            "date is not valid: parsing time {expires_before:?} as {form:?}: date, time, and the \
             offset from UTC twice are needed"
        )));
    }
    let either = |flag| match values.text(flag) {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    };
    Ok(list_agents_request::Filter {
        by_attestation_type: values.text("attestationType").to_owned(),
        by_selector_match,
        by_banned: either("banned"),
        by_can_reattest: either("canReattest"),
        by_expires_before: expires_before.to_owned(),
    })
}

/// The lines of an agent, with the empty one that ends it.
fn block(agent: &Agent) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: &str| {
        let _ = writeln!(text, "{label:18}: {value}");
    };
    line("SPIFFE ID", &id_text(agent.id.as_ref()));
    line("Attestation type", &agent.attestation_type);
    line("Expiration time", &local_time(agent.x509svid_expires_at));
    if agent.banned {
        line("Banned", "true");
    } else {
        line("Serial number", &agent.x509svid_serial_number);
    }
    line("Can re-attest", if agent.can_reattest { "true" } else { "false" });
    if !agent.agent_version.is_empty() {
        line("Agent version", &agent.agent_version);
    }
    text.push('\n');
    text
}
