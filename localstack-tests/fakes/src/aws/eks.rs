//! ListNodegroups and DescribeNodegroup.

use serde_json::{Value, json};

use super::{World, fields, page, respond, with};
use crate::http::{Request, Response};

pub(super) fn list_nodegroups(request: &Request, world: &World) -> Response {
    let Some(groups) = world.clusters.get(&segment(request, 1)) else { return no_cluster() };
    let (groups, next) = page(groups, token(request).as_deref(), world.page_size);
    let names: Vec<&String> = groups.iter().map(|(name, _)| name).collect();
    json_answer(200, &json!({ "nodegroups": names, "nextToken": next }))
}

pub(super) fn describe_nodegroup(request: &Request, world: &World) -> Response {
    let Some(groups) = world.clusters.get(&segment(request, 1)) else { return no_cluster() };
    let name = segment(request, 3);
    let Some((_, scaling)) = groups.iter().find(|(known, _)| *known == name) else {
        return no_cluster();
    };
    let scaling: Vec<Value> = scaling.iter().map(|name| json!({ "name": name })).collect();
    let resources = json!({ "autoScalingGroups": scaling });
    let group = json!({ "nodegroupName": name, "resources": resources });
    json_answer(200, &json!({ "nodegroup": group }))
}

fn segment(request: &Request, index: usize) -> String {
    request.path.trim_matches('/').split('/').nth(index).unwrap_or_default().to_owned()
}

fn no_cluster() -> Response {
    let answer = json_answer(404, &json!({"message": "No cluster found"}));
    with(answer, "x-amzn-errortype", "ResourceNotFoundException")
}

fn json_answer(status: u16, value: &Value) -> Response {
    with(respond(status, value.to_string()), "content-type", "application/json")
}

fn token(request: &Request) -> Option<String> {
    let mut fields = fields(request.query.as_bytes()).into_iter();
    fields.find(|(key, _)| key == "nextToken").map(|(_, token)| token)
}
