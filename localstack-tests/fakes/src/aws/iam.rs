//! GetInstanceProfile.

use super::xml::{self, element, text};
use super::{Caller, World};
use crate::http::Response;

const NAMESPACE: &str = "https://iam.amazonaws.com/doc/2010-05-08/";

pub(super) fn get_instance_profile(
    fields: &[(String, String)],
    caller: &Caller,
    world: &World,
) -> Response {
    let name = fields.iter().find(|(key, _)| key == "InstanceProfileName");
    let name = name.map(|(_, name)| name.as_str()).unwrap_or_default();
    let Some(roles) = world.profiles.get(&(caller.account.clone(), name.to_owned())) else {
        let message = format!("Instance Profile {name} cannot be found.");
        return xml::query_error(404, "NoSuchEntity", &message);
    };
    let time = text("CreateDate", "2026-01-01T00:00:00Z");
    let roles = roles.iter().map(|arn| {
        let name = arn.rsplit('/').next().unwrap_or_default();
        let parts = [
            text("Path", "/"),
            text("RoleName", name),
            text("RoleId", "AROAFAKE"),
            text("Arn", arn),
            time.clone(),
        ];
        element("member", parts.concat())
    });
    let profile = [
        text("Path", "/"),
        text("InstanceProfileName", name),
        text("InstanceProfileId", "AIPAFAKE"),
        text("Arn", &format!("arn:aws:iam::{}:instance-profile/{name}", caller.account)),
        time.clone(),
        element("Roles", roles.collect::<String>()),
    ];
    let result = element("InstanceProfile", profile.concat());
    let result = element("GetInstanceProfileResult", result);
    xml::answer("GetInstanceProfileResponse", NAMESPACE, &result)
}
