//! GetSecretValue of Secrets Manager.

use serde_json::json;

use super::World;
use super::call::{Call, Caller, Refusal};
use crate::http::Response;

/// A secret is known by its name, or by an ARN that ends in its name, in its own region alone.
pub(super) fn value(call: &Call<'_>, caller: &Caller, world: &World) -> Result<Response, Refusal> {
    let body = call.body();
    let id = body["SecretId"].as_str().unwrap_or_default();
    let arn = |name: &str| {
        format!("arn:aws:secretsmanager:{}:{}:secret:{name}", caller.region, caller.account)
    };
    let mut here = world.secrets.iter().filter(|((region, _), _)| *region == caller.region);
    let found = here.find(|((_, name), _)| name == id || arn(name) == id);
    let ((_, name), value) = found.ok_or_else(|| {
        let message = "Secrets Manager can't find the specified secret.";
        Refusal::new(400, "ResourceNotFoundException", message)
    })?;
    Ok(call.json(&json!({ "ARN": arn(name), "Name": name, "SecretString": value })))
}
