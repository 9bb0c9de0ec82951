//! AssumeRole.

use super::World;
use super::xml::{self, element, text};
use crate::http::Response;

const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

pub(super) fn assume_role(fields: &[(String, String)], world: &World) -> Response {
    let field = |name: &str| {
        let found = fields.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).unwrap_or_default()
    };
    let arn = field("RoleArn");
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let (account, role) = match parts[..] {
        ["arn", _, "iam", "", account, resource] => {
            (account, resource.strip_prefix("role/").unwrap_or_default())
        }
        _ => return xml::query_error(400, "ValidationError", "no ARN of a role"),
    };
    if !world.roles.contains(&(account.to_owned(), role.to_owned())) {
        let message = format!("not authorized to perform: sts:AssumeRole on resource: {arn}");
        return xml::query_error(403, "AccessDenied", &message);
    }
    let credentials = [
        text("AccessKeyId", &format!("ASIA{account}")),
        text("SecretAccessKey", "secret"),
        text("SessionToken", "session"),
        text("Expiration", "2099-01-01T00:00:00Z"),
    ];
    let user = text("AssumedRoleId", "AROAFAKE:session") + &text("Arn", arn);
    let result = element("Credentials", credentials.concat()) + &element("AssumedRoleUser", user);
    xml::answer("AssumeRoleResponse", NAMESPACE, &element("AssumeRoleResult", result))
}
