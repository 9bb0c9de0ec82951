//! Lists of entries and agents under each filter, later pages, and counts.

use std::cell::Cell;

use anyhow::{Result, ensure};
use spire_core::wire::agent::agent_client::AgentClient;
use spire_core::wire::agent::{ListAgentsRequest, list_agents_request};
use spire_core::wire::entry::entry_client::EntryClient;
use spire_core::wire::entry::list_entries_request::Filter;
use spire_core::wire::entry::{CountEntriesRequest, ListEntriesRequest};
use spire_core::wire::types::selector_match::MatchBehavior;
use spire_core::wire::types::{FederatesWithMatch, SelectorMatch, federates_with_match};
use spire_localstack_tests::load::{Agent, Table, drive};
use spire_localstack_tests::server::member;

use crate::world::{PARTNER, World, entry};

/// Calls of each kind, and entries on a page.
const CALLS: usize = 50;
const PAGE: i32 = 100;

/// Reads a page of each kind again and again, each time of other entries.
pub(crate) async fn measure(
    world: &World,
    entries: usize,
    agents: &[Agent],
    costs: &mut Table,
) -> Result<()> {
    let selectors = |number: usize, behavior: MatchBehavior, count: usize| {
        let mut selectors = entry("", number).selectors;
        selectors.reverse();
        selectors.truncate(count);
        let r#match = behavior as i32;
        Filter { by_selectors: Some(SelectorMatch { selectors, r#match }), ..Filter::default() }
    };
    let (exact, subset) = (MatchBehavior::MatchExact, MatchBehavior::MatchSubset);
    let (superset, any) = (MatchBehavior::MatchSuperset, MatchBehavior::MatchAny);
    let by_parent = |number: usize| Filter {
        by_parent_id: Some(member(agents[number % agents.len()].id.path())),
        ..Filter::default()
    };
    let by_id =
        |number: usize| Filter { by_spiffe_id: entry("", number).spiffe_id, ..Filter::default() };
    let by_hint =
        |number: usize| Filter { by_hint: Some(entry("", number).hint), ..Filter::default() };
    let partner = |_| {
        let trust_domains = vec![PARTNER.to_owned()];
        let r#match = federates_with_match::MatchBehavior::MatchAny as i32;
        let by_federates_with = Some(FederatesWithMatch { trust_domains, r#match });
        Filter { by_federates_with, ..Filter::default() }
    };
    let downstream = |_| Filter { by_downstream: Some(true), ..Filter::default() };
    type Make<'m> = &'m dyn Fn(usize) -> Filter;
    let kinds: [(&str, Make<'_>); 10] = [
        ("list without a filter", &|_| Filter::default()),
        ("list by parent", &by_parent),
        ("list by SPIFFE ID", &by_id),
        ("list by hint, of 1,000", &by_hint),
        ("list by selectors, exactly three", &|number| selectors(number, exact, 3)),
        ("list by selectors, subset of three", &|number| selectors(number, subset, 3)),
        ("list by selectors, superset of one of 1,000", &|number| selectors(number, superset, 1)),
        ("list by selectors, any of three", &|number| selectors(number, any, 3)),
        ("list by federated trust domain", &partner),
        ("list of downstream entries", &downstream),
    ];
    for (what, filter) in kinds {
        let before = world.second().process.cpu()?;
        let list = async |call: usize| {
            let request = ListEntriesRequest {
                filter: Some(filter(call * 7919 % entries)),
                page_size: PAGE,
                ..ListEntriesRequest::default()
            };
            let mut client = EntryClient::new(world.second().operator.clone());
            let page = client.list_entries(request).await?.into_inner();
            ensure!(!page.entries.is_empty(), "{what}: nothing was found");
            Ok(())
        };
        let times = drive(CALLS, 1, list).await?;
        costs.add_calls(what, &times, 1, world.second().process.cpu()? - before);
    }
    let before = world.second().process.cpu()?;
    let token = Cell::new(String::new());
    let next = async |_| {
        let page_token = token.take();
        let page_size = PAGE;
        let request = ListEntriesRequest { page_size, page_token, ..Default::default() };
        let mut client = EntryClient::new(world.second().operator.clone());
        token.set(client.list_entries(request).await?.into_inner().next_page_token);
        Ok(())
    };
    let times = drive(CALLS, 1, next).await?;
    costs.add_calls("list, page after page", &times, 1, world.second().process.cpu()? - before);

    let before = world.second().process.cpu()?;
    let count = async |_| {
        let mut client = EntryClient::new(world.second().operator.clone());
        client.count_entries(CountEntriesRequest::default()).await?;
        Ok(())
    };
    let times = drive(5, 1, count).await?;
    costs.add_calls("count of all entries", &times, 1, world.second().process.cpu()? - before);
    Ok(())
}

/// Reads a page of agents of each kind again and again.
pub(crate) async fn of_agents(world: &World, agents: &[Agent], costs: &mut Table) -> Result<()> {
    type Filter = list_agents_request::Filter;
    let none = Filter::default;
    let end = "2100-01-01 00:00:00 +0000 +00".to_owned();
    // All agents attested by join tokens, none may attest again and none is banned.
    let kinds = [
        ("list of agents without a filter", true, none()),
        (
            "list of agents by attestation type",
            true,
            Filter { by_attestation_type: "join_token".to_owned(), ..none() },
        ),
        (
            "list of agents by attestation type, of none",
            false,
            Filter { by_attestation_type: "x509pop".to_owned(), ..none() },
        ),
        ("list of banned agents, of none", false, Filter { by_banned: Some(true), ..none() }),
        (
            "list of agents that can attest again, of none",
            false,
            Filter { by_can_reattest: Some(true), ..none() },
        ),
        ("list of agents that expire", true, Filter { by_expires_before: end, ..none() }),
    ];
    for (what, finds, filter) in kinds {
        let before = world.second().process.cpu()?;
        let list = async |_| {
            let filter = Some(filter.clone());
            let request = ListAgentsRequest { filter, page_size: PAGE, ..Default::default() };
            let mut client = AgentClient::new(world.second().operator.clone());
            let page = client.list_agents(request).await?.into_inner();
            ensure!(page.agents.is_empty() != finds, "{what}: of {} agents", agents.len());
            Ok(())
        };
        let times = drive(CALLS, 1, list).await?;
        costs.add_calls(what, &times, 1, world.second().process.cpu()? - before);
    }
    Ok(())
}
