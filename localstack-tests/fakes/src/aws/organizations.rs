//! ListAccounts.

use serde_json::{Value, json};

use super::{World, page, respond, with};
use crate::http::{Request, Response};

/// How many accounts AWS puts on a page.
const PAGE: usize = 20;

pub(super) fn list_accounts(request: &Request, world: &World) -> Response {
    let asked: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let size = if world.page_size == 0 { PAGE } else { world.page_size };
    let (accounts, next) = page(&world.accounts, asked["NextToken"].as_str(), size);
    let accounts: Vec<Value> = accounts
        .iter()
        .map(|(id, status)| json!({"Id": id, "Status": status, "Name": id}))
        .collect();
    let mut answer = json!({ "Accounts": accounts });
    if let Some(next) = next {
        answer["NextToken"] = next.into();
    }
    with(respond(200, answer.to_string()), "content-type", "application/x-amz-json-1.1")
}
