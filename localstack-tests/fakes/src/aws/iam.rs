//! GetInstanceProfile.

use super::World;
use super::call::{Call, Caller, Refusal};
use super::xml::{element, text};
use crate::http::Response;

const NAMESPACE: &str = "https://iam.amazonaws.com/doc/2010-05-08/";

pub(super) fn get_instance_profile(
    call: &Call<'_>,
    caller: &Caller,
    world: &World,
) -> Result<Response, Refusal> {
    let name = call.field("InstanceProfileName");
    let Some(roles) = world.profiles.get(&(caller.account.clone(), name.to_owned())) else {
        let message = format!("Instance Profile {name} cannot be found.");
        return Err(Refusal::new(404, "NoSuchEntity", message));
    };
    let time = text("CreateDate", "2026-01-01T00:00:00Z");
    let roles = roles.iter().map(|arn| {
        // What follows the colon is `role`, then the path, then the name.
        let (_, resource) = arn.split_once(":role").unwrap_or_default();
        let (path, name) = resource.rsplit_once('/').unwrap_or_default();
        let parts = [
            text("Path", &format!("{path}/")),
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
    Ok(call.xml(NAMESPACE, &element("InstanceProfile", profile.concat())))
}
