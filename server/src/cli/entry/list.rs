//! `entry show` and `entry count`.

use spire_core::command::{Context, Failure, Outcome, answer};
use spire_core::flags::Values;
use spire_core::wire::entry::entry_client::EntryClient;
use spire_core::wire::entry::{
    CountEntriesRequest, GetEntryRequest, ListEntriesRequest, ListEntriesResponse,
    count_entries_request, list_entries_request,
};
use spire_core::wire::types::{Entry, FederatesWithMatch, SelectorMatch, Spiffeid};

use super::block::block;
use crate::cli::SOCKET;
use crate::cli::values::{id_text, match_behavior, selector, wire_id};

const PAGE: i32 = 500;

pub(super) async fn show(values: Values) -> Outcome {
    let filter = filter(&values)?;
    let mut client = EntryClient::new(SOCKET.channel(&values)?);
    let mut entries = Vec::new();
    if let Some(id) = values.given_text("entryID") {
        if filter != list_entries_request::Filter::default() {
            return Err(Failure::new("the -entryID flag can't be combined with others"));
        }
        let request = GetEntryRequest { id: id.to_owned(), output_mask: None };
        let entry = client.get_entry(request).await;
        entries.push(entry.context(format_args!("error fetching entry ID {id}"))?.into_inner());
    } else {
        let mut request =
            ListEntriesRequest { filter: Some(filter), page_size: PAGE, ..Default::default() };
        loop {
            let page = client.list_entries(request.clone()).await;
            let page = page.context("error fetching entries")?.into_inner();
            entries.extend(page.entries);
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
        }
        sort(&mut entries);
    }
    let listed = ListEntriesResponse { entries, next_page_token: String::new() };
    answer(&values, &listed, || {
        let count = listed.entries.len();
        let what = if count == 1 { "entry" } else { "entries" };
        let blocks: String = listed.entries.iter().map(block).collect();
        format!("Found {count} {what}\n{blocks}")
    })
}

pub(super) async fn count(values: Values) -> Outcome {
    let filter = filter(&values)?;
    let filter = count_entries_request::Filter {
        by_spiffe_id: filter.by_spiffe_id,
        by_parent_id: filter.by_parent_id,
        by_selectors: filter.by_selectors,
        by_federates_with: filter.by_federates_with,
        by_hint: filter.by_hint,
        by_downstream: filter.by_downstream,
    };
    let mut client = EntryClient::new(SOCKET.channel(&values)?);
    let request = CountEntriesRequest { filter: Some(filter) };
    let counted = client.count_entries(request).await?.into_inner();
    answer(&values, &counted, || {
        let what = if counted.count == 1 { "entry" } else { "entries" };
        format!("{} registration {what}\n", counted.count)
    })
}

fn filter(values: &Values) -> Result<list_entries_request::Filter, Failure> {
    let id = |what: &str, flag: &str| {
        let id = values
            .given_text(flag)
            .map(|text| wire_id(text).context(format_args!("error parsing {what} {text:?}")));
        id.transpose()
    };
    let behavior = |flag: &str| {
        let text = values.text(flag);
        let behavior = match_behavior(text);
        behavior.ok_or_else(|| Failure::new(format!("match behavior {text:?} unknown")))
    };
    let by_parent_id = id("parent ID", "parentID")?;
    let by_spiffe_id = id("SPIFFE ID", "spiffeID")?;
    let mut filter = list_entries_request::Filter {
        by_parent_id,
        by_spiffe_id,
        by_hint: values.given_text("hint").map(ToOwned::to_owned),
        by_downstream: values.bool("downstream").then_some(true),
        ..Default::default()
    };
    let selectors = values.list("selector").iter().map(|text| selector(text));
    let selectors: Vec<_> =
        selectors.collect::<Result<_, _>>().context("error parsing selectors")?;
    if !selectors.is_empty() {
        let r#match = behavior("matchSelectorsOn")?.into();
        filter.by_selectors = Some(SelectorMatch { selectors, r#match });
    }
    let trust_domains = values.list("federatesWith").to_vec();
    if !trust_domains.is_empty() {
        let r#match = behavior("matchFederatesWithOn")?.into();
        filter.by_federates_with = Some(FederatesWithMatch { trust_domains, r#match });
    }
    Ok(filter)
}

/// By what identifies an entry to people; the selectors inside it as well.
fn sort(entries: &mut [Entry]) {
    for entry in &mut *entries {
        entry
            .selectors
            .sort_by(|one, other| (&one.r#type, &one.value).cmp(&(&other.r#type, &other.value)));
    }
    entries.sort_by_cached_key(|entry| {
        let id = |id: &Option<Spiffeid>| id_text(id.as_ref());
        let selectors: Vec<_> = entry
            .selectors
            .iter()
            .map(|selector| (selector.r#type.clone(), selector.value.clone()))
            .collect();
        let ttls = (entry.x509_svid_ttl, entry.jwt_svid_ttl);
        (id(&entry.spiffe_id), id(&entry.parent_id), ttls, selectors)
    });
}
