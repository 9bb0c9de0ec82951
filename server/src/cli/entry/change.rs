//! `entry create` and `entry update`.

use prost::Message;
use spire_core::command::{Context, Failure, Outcome, is_json, print, print_error, print_json};
use spire_core::flags::Values;
use spire_core::id::SERVER_PATH;
use spire_core::wire::entry::batch_create_entry_response::Result as Item;
use spire_core::wire::entry::entry_client::EntryClient;
use spire_core::wire::entry::{
    BatchCreateEntryRequest, BatchCreateEntryResponse, BatchUpdateEntryRequest, GetEntryRequest,
};
use spire_core::wire::json::to_json;
use spire_core::wire::types::entry::AdditionalAttributes;
use spire_core::wire::types::{Entry, Spiffeid};
use tonic::Status;
use tonic::transport::Channel;

use super::batches::batches;
use super::block::block;
use super::data;
use crate::cli::SOCKET;
use crate::cli::values::{ItemStatus, int32, selector, spiffe_id};

#[derive(Clone, Copy)]
enum Verb {
    Create,
    Update,
}

pub(super) async fn create(values: Values) -> Outcome {
    let entries = match values.given_text("data") {
        Some(path) => data::read(path)?,
        None => {
            check_create(&values)?;
            let attributes = AdditionalAttributes {
                disable_x509_svid_prefetch: values.bool("disableX509SVIDPrefetch"),
                jwt_svid_include_jti: values.bool("jwtSVIDIncludeJTI"),
            };
            let any = attributes != AdditionalAttributes::default();
            vec![from_flags(&values, any.then_some(attributes))?]
        }
    };
    change(Verb::Create, &values, EntryClient::new(SOCKET.channel(&values)?), entries).await
}

pub(super) async fn update(values: Values) -> Outcome {
    let mut client = EntryClient::new(SOCKET.channel(&values)?);
    let entries = match values.given_text("data") {
        Some(path) => data::read(path)?,
        None => {
            check_update(&values)?;
            let mut entry = from_flags(&values, None)?;
            entry.additional_attributes = merged_attributes(&values, &mut client).await?;
            vec![entry]
        }
    };
    change(Verb::Update, &values, client, entries).await
}

/// Sends the entries batch by batch, and tells what became of each. Where a batch fails as a whole,
/// those before it are told all the same, since they stay.
async fn change(
    verb: Verb,
    values: &Values,
    mut client: EntryClient<Channel>,
    entries: Vec<Entry>,
) -> Outcome {
    let mut results = Vec::with_capacity(entries.len());
    let mut outcome = Ok(());
    for batch in batches(entries, Message::encoded_len) {
        match verb.send(&mut client, batch.clone()).await {
            Ok(items) => results.extend(items.into_iter().zip(batch).map(|(item, asked)| Item {
                entry: if is_ok(&item) { item.entry } else { Some(asked) },
                ..item
            })),
            Err(status) => {
                outcome = Err(status.into());
                break;
            }
        }
    }
    if outcome.is_err() && results.is_empty() {
        return outcome;
    }
    if is_json(values) {
        // The answer to an update has the same fields.
        print_json(&to_json(&BatchCreateEntryResponse { results }))?;
        return outcome;
    }
    let verb = verb.name();
    let mut refused = false;
    for item in &results {
        let block = item.entry.as_ref().map(block).unwrap_or_default();
        if is_ok(item) {
            print(&block)?;
        } else {
            refused = true;
            let status = ItemStatus(item.status.as_ref());
            print_error(&format!("Failed to {verb} the following entry ({status}):\n{block}"));
        }
    }
    outcome?;
    if refused {
        return Err(Failure::new(format!("failed to {verb} one or more entries")));
    }
    Ok(())
}

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
        }
    }

    async fn send(
        self,
        client: &mut EntryClient<Channel>,
        entries: Vec<Entry>,
    ) -> Result<Vec<Item>, Status> {
        match self {
            Self::Create => {
                let request = BatchCreateEntryRequest { entries, output_mask: None };
                Ok(client.batch_create_entry(request).await?.into_inner().results)
            }
            Self::Update => {
                let request =
                    BatchUpdateEntryRequest { entries, input_mask: None, output_mask: None };
                let results = client.batch_update_entry(request).await?.into_inner().results;
                let item = |(status, entry)| Item { status, entry };
                Ok(results.into_iter().map(|one| item((one.status, one.entry))).collect())
            }
        }
    }
}

fn is_ok(item: &Item) -> bool {
    ItemStatus(item.status.as_ref()).is_ok()
}

fn check_create(values: &Values) -> Outcome {
    need(!values.list("selector").is_empty(), "at least one selector is required")?;
    let federates = !values.list("federatesWith").is_empty();
    need(!(values.bool("node") && federates), "node entries can not federate")?;
    let has_parent = values.given_text("parentID").is_some() || values.bool("node");
    need(has_parent, "a parent ID is required if the node flag is not set")?;
    check_rest(values)
}

fn check_update(values: &Values) -> Outcome {
    need(values.given_text("entryID").is_some(), "entry ID is required")?;
    need(!values.list("selector").is_empty(), "at least one selector is required")?;
    need(values.given_text("parentID").is_some(), "a parent ID is required")?;
    check_rest(values)
}

fn check_rest(values: &Values) -> Outcome {
    need(values.given_text("spiffeID").is_some(), "a SPIFFE ID is required")?;
    let new = values.is_given("x509SVIDTTL") || values.is_given("jwtSVIDTTL");
    let both =
        "the -ttl flag sets both TTLs and can't be combined with -x509SVIDTTL or -jwtSVIDTTL";
    need(!(values.is_given("ttl") && new), both)?;
    need(ttl(values, "x509SVIDTTL") >= 0, "a positive x509-SVID TTL is required")?;
    need(ttl(values, "jwtSVIDTTL") >= 0, "a positive JWT-SVID TTL is required")
}

fn need(met: bool, or_else: &str) -> Outcome {
    if met { Ok(()) } else { Err(Failure::new(or_else)) }
}

/// The TTL by its own flag, or by the former one that set both.
fn ttl(values: &Values, flag: &str) -> i64 {
    values.integer(if values.is_given("ttl") { "ttl" } else { flag })
}

fn from_flags(
    values: &Values,
    additional_attributes: Option<AdditionalAttributes>,
) -> Result<Entry, Failure> {
    let id: Spiffeid = (&spiffe_id("spiffeID", values.text("spiffeID"))?).into();
    let parent_id = if values.bool("node") {
        Spiffeid { path: SERVER_PATH.to_owned(), ..id.clone() }
    } else {
        (&spiffe_id("parentID", values.text("parentID"))?).into()
    };
    Ok(Entry {
        id: values.text("entryID").to_owned(),
        parent_id: Some(parent_id),
        spiffe_id: Some(id),
        x509_svid_ttl: int32("X509 SVID TTL", ttl(values, "x509SVIDTTL"))?,
        jwt_svid_ttl: int32("JWT SVID TTL", ttl(values, "jwtSVIDTTL"))?,
        selectors: values
            .list("selector")
            .iter()
            .map(|text| selector(text))
            .collect::<Result<_, _>>()?,
        federates_with: values.list("federatesWith").to_vec(),
        admin: values.bool("admin"),
        store_svid: values.bool("storeSVID"),
        downstream: values.bool("downstream"),
        expires_at: values.integer("entryExpiry"),
        dns_names: values.list("dns").to_vec(),
        hint: values.text("hint").to_owned(),
        additional_attributes,
        ..Entry::default()
    })
}

/// An update replaces the whole entry, but one of these two flags keeps the other's value.
async fn merged_attributes(
    values: &Values,
    client: &mut EntryClient<Channel>,
) -> Result<Option<AdditionalAttributes>, Failure> {
    let prefetch = values.is_given("disableX509SVIDPrefetch");
    let jti = values.is_given("jwtSVIDIncludeJTI");
    if !(prefetch || jti) {
        return Ok(None);
    }
    let mut attributes = AdditionalAttributes::default();
    if !(prefetch && jti) {
        let id = values.text("entryID").to_owned();
        let stored = client.get_entry(GetEntryRequest { id, output_mask: None }).await;
        let stored =
            stored.context("failed to fetch existing entry to merge additional attributes")?;
        attributes = stored.into_inner().additional_attributes.unwrap_or_default();
    }
    // As in SPIRE, a flag that is given sets its attribute, whatever its value.
    attributes.disable_x509_svid_prefetch |= prefetch;
    attributes.jwt_svid_include_jti |= jti;
    Ok(Some(attributes))
}
