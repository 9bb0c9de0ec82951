//! ListNodegroups and DescribeNodegroup.

use serde_json::{Value, json};

use super::World;
use super::call::{Call, Refusal, page};
use crate::http::Response;

pub(super) fn list_nodegroups(call: &Call<'_>, world: &World) -> Result<Response, Refusal> {
    let groups = cluster(call, world)?;
    let wanted = call.parameter("maxResults").and_then(|wanted| wanted.parse().ok());
    let token = call.parameter("nextToken");
    let (groups, next) = page(groups, token.as_deref(), wanted, world.page_size);
    let names: Vec<&String> = groups.iter().map(|(name, _)| name).collect();
    Ok(call.json(&json!({ "nodegroups": names, "nextToken": next })))
}

pub(super) fn describe_nodegroup(call: &Call<'_>, world: &World) -> Result<Response, Refusal> {
    let name = call.segment(3);
    let group = cluster(call, world)?.iter().find(|(known, _)| *known == name);
    let (_, scaling) =
        group.ok_or_else(|| absent(&format!("No node group found for name: {name}.")))?;
    let scaling: Vec<Value> = scaling.iter().map(|name| json!({ "name": name })).collect();
    let resources = json!({ "autoScalingGroups": scaling });
    let group = json!({ "nodegroupName": name, "status": "ACTIVE", "resources": resources });
    Ok(call.json(&json!({ "nodegroup": group })))
}

/// The node groups of the cluster that is asked for.
fn cluster<'w>(call: &Call<'_>, world: &'w World) -> Result<&'w [(String, Vec<String>)], Refusal> {
    let name = call.segment(1);
    let groups = world.clusters.get(&name);
    let absent = || absent(&format!("No cluster found for name: {name}."));
    groups.map(Vec::as_slice).ok_or_else(absent)
}

fn absent(message: &str) -> Refusal {
    Refusal::new(404, "ResourceNotFoundException", message)
}
