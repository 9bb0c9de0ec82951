//! AssumeRole, AssumeRoleWithWebIdentity and GetCallerIdentity.

use super::World;
use super::call::{Call, Caller, Refusal};
use super::xml::{element, text};
use crate::http::Response;

/// The token that [`assume_role_with_web_identity`] takes.
pub const WEB_IDENTITY: &str = "web-identity-token";

const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

pub(super) fn assume_role(
    call: &Call<'_>,
    caller: &Caller,
    world: &World,
) -> Result<Response, Refusal> {
    let arn = call.field("RoleArn");
    if arn.split(':').nth(1) != Some(partition(&caller.region)) {
        let message = format!("{arn} is not of the partition of {}", caller.region);
        return Err(Refusal::new(400, "ValidationError", message));
    }
    give_out(call, &caller.arn(), world)
}

/// Whoever has a token of another issuer needs no key to ask.
pub(super) fn assume_role_with_web_identity(
    call: &Call<'_>,
    world: &World,
) -> Result<Response, Refusal> {
    if call.field("WebIdentityToken") != WEB_IDENTITY {
        let message = "The token could not be validated";
        return Err(Refusal::new(400, "InvalidIdentityToken", message));
    }
    give_out(call, "arn:aws:iam::fake:web-identity", world)
}

/// The partition that `region` is in.
fn partition(region: &str) -> &'static str {
    match region.split('-').next() {
        Some("cn") => "aws-cn",
        Some("eusc") => "aws-eusc",
        _ if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    }
}

/// The credentials of the role that `user` asks for.
fn give_out(call: &Call<'_>, user: &str, world: &World) -> Result<Response, Refusal> {
    let arn = call.field("RoleArn");
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let (account, role) = match parts[..] {
        ["arn", _, "iam", "", account, resource] => {
            (account, resource.strip_prefix("role/").unwrap_or_default())
        }
        _ => return Err(Refusal::new(400, "ValidationError", format!("{arn} is invalid"))),
    };
    if !world.roles.contains(&(account.to_owned(), role.to_owned())) {
        let action = format!("sts:{} on resource: {arn}", call.action);
        let message = format!("User: {user} is not authorized to perform: {action}");
        return Err(Refusal::new(403, "AccessDenied", message));
    }
    let session = call.field("RoleSessionName");
    let name = role.rsplit('/').next().unwrap_or_default();
    let user = format!("arn:aws:sts::{account}:assumed-role/{name}/{session}");
    let credentials = [
        text("AccessKeyId", &format!("ASIA{account}")),
        text("SecretAccessKey", "secret"),
        text("SessionToken", "session"),
        text("Expiration", "2099-01-01T00:00:00Z"),
    ];
    let user = text("AssumedRoleId", &format!("AROAFAKE:{session}")) + &text("Arn", &user);
    let result = element("Credentials", credentials.concat()) + &element("AssumedRoleUser", user);
    Ok(call.xml(NAMESPACE, &result))
}

pub(super) fn get_caller_identity(call: &Call<'_>, caller: &Caller) -> Response {
    let parts =
        [text("Arn", &caller.arn()), text("UserId", "AIDAFAKE"), text("Account", &caller.account)];
    call.xml(NAMESPACE, &parts.concat())
}

impl Caller {
    fn arn(&self) -> String {
        let account = &self.account;
        match self.is_temporary {
            true => format!("arn:aws:sts::{account}:assumed-role/fake/session"),
            false => format!("arn:aws:iam::{account}:user/spire-server"),
        }
    }
}
