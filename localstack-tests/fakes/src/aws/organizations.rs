//! ListAccounts.

use serde_json::{Value, json};

use super::World;
use super::call::{Call, Caller, Refusal, page};
use crate::http::Response;

/// How many accounts AWS puts on a page.
const PAGE: usize = 20;

pub(super) fn list_accounts(
    call: &Call<'_>,
    caller: &Caller,
    world: &World,
) -> Result<Response, Refusal> {
    if world.management_account.as_ref().is_some_and(|account| *account != caller.account) {
        return Err(call.protocol.denied("organizations:ListAccounts"));
    }
    let asked = call.body();
    let size = if world.page_size == 0 { PAGE } else { world.page_size };
    let wanted = asked["MaxResults"].as_u64().and_then(|wanted| usize::try_from(wanted).ok());
    let (accounts, next) = page(&world.accounts, asked["NextToken"].as_str(), wanted, size);
    let accounts: Vec<Value> = accounts
        .iter()
        .map(|(id, status)| json!({"Id": id, "Status": status, "Name": id}))
        .collect();
    let mut answer = json!({ "Accounts": accounts });
    if let Some(next) = next {
        answer["NextToken"] = next.into();
    }
    Ok(call.json(&answer))
}
