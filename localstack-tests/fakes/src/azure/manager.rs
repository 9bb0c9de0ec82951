//! Azure Resource Manager and Resource Graph, as far as they tell of machines.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::entra::Entra;
use super::machine::Machine;
use super::{World, answer, locked};
use crate::http::{HttpServer, Request, Response};

pub(crate) async fn serve(entra: Arc<Entra>, world: Arc<Mutex<World>>) -> HttpServer {
    HttpServer::start(move |request| {
        let token = request.header("authorization").strip_prefix("Bearer ").unwrap_or_default();
        match entra.tenant_of(token) {
            Some(tenant) => ask(&mut locked(&world), &tenant, request),
            None => refuse(401, "InvalidAuthenticationToken"),
        }
    })
    .await
}

fn refuse(status: u16, code: &str) -> Response {
    answer(status, &json!({ "error": { "code": code, "message": "the fake says no" } }))
}

fn ask(world: &mut World, tenant: &str, request: &Request) -> Response {
    let path: Vec<&str> = request.path.split('/').skip(1).collect();
    if path == ["providers", "Microsoft.ResourceGraph", "resources"] {
        return match world.admits_query() {
            true => graph(world, tenant, request),
            false => refuse(429, "RateLimiting"),
        };
    }
    let world = &*world;
    let ["subscriptions", subscription, rest @ ..] = &path[..] else {
        return refuse(404, "NotFound");
    };
    match world.subscriptions.iter().find(|(id, _)| id == subscription) {
        None => return refuse(404, "SubscriptionNotFound"),
        Some((_, owner)) if owner != tenant => {
            return refuse(401, "InvalidAuthenticationTokenTenant");
        }
        Some(_) => {}
    }
    let machines =
        || world.machines.iter().filter(|machine| machine.subscription == **subscription);
    match rest {
        [] => answer(200, &json!({ "subscriptionId": subscription, "tenantId": tenant })),
        ["resources"] => {
            let query = url::form_urlencoded::parse(request.query.as_bytes());
            let filter = query.into_owned().find(|(key, _)| key == "$filter");
            let filter = filter.map(|(_, value)| value).unwrap_or_default();
            let principal = filter.split("principalId eq '").nth(1).unwrap_or_default();
            let principal = principal.strip_suffix('\'').unwrap_or_default();
            let own = machines()
                .filter(|machine| !machine.is_uniform() && machine.principal_id == principal);
            let found: Vec<Value> = own.map(|machine| json!({ "id": machine.id() })).collect();
            page(world, request, &found)
        }
        ["resourceGroups", group, "providers", "Microsoft.Compute", "virtualMachines", name] => {
            let found = machines().find(|one| one.group == *group && one.name == *name);
            found
                .map_or_else(|| refuse(404, "ResourceNotFound"), |one| answer(200, &one.resource()))
        }
        [
            "resourceGroups",
            group,
            "providers",
            "Microsoft.Compute",
            "virtualMachineScaleSets",
            set,
            "virtualMachines",
        ] => {
            let members = machines().filter(|machine| {
                machine.is_uniform() && machine.group == *group && machine.set_name() == Some(set)
            });
            page(world, request, &members.map(Machine::member).collect::<Vec<_>>())
        }
        ["resourceGroups", _, "providers", "Microsoft.Network", "networkInterfaces", _] => {
            let interfaces = world.machines.iter().flat_map(|machine| {
                let interfaces = machine.interfaces.iter().enumerate();
                interfaces.map(move |(at, interface)| (machine, at, interface))
            });
            let mut found =
                interfaces.filter(|(machine, at, _)| machine.interface_id(*at) == request.path);
            match found.next() {
                Some((machine, _, interface)) => {
                    answer(200, &json!({ "properties": machine.interface(interface) }))
                }
                None => refuse(404, "ResourceNotFound"),
            }
        }
        _ => refuse(404, "NotFound"),
    }
}

/// A page of `items`, with a link to the next one.
fn page(world: &World, request: &Request, items: &[Value]) -> Response {
    let query = url::form_urlencoded::parse(request.query.as_bytes());
    let skip = query.into_owned().find(|(key, _)| key == "$skip");
    let skip: usize = skip.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
    let end = items.len().min(skip + world.page);
    let mut body = json!({ "value": items[skip.min(end)..end] });
    if end < items.len() {
        // Links name the service as it is known, whatever name it was asked by.
        let host = world.names.resource_manager;
        let url = format!("https://{host}{}?{}", request.path, request.query);
        let url = url.split("&$skip=").next().unwrap_or_default();
        body["nextLink"] = format!("{url}&$skip={end}").into();
    }
    answer(200, &body)
}

/// Answers the two kinds of questions that are asked: by the type, and by what is in quotes.
fn graph(world: &World, tenant: &str, request: &Request) -> Response {
    if let Some(fixed) = &world.graph_answer {
        return answer(200, fixed);
    }
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let query = body["query"].as_str().unwrap_or_default();
    let quoted: Vec<&str> = query.split('\'').skip(1).step_by(2).collect();
    let [kind, asked @ ..] = &quoted[..] else { return refuse(400, "InvalidQuery") };
    let visible = |subscription: &str| {
        let asked_for = body["subscriptions"].as_array().into_iter().flatten();
        asked_for.filter_map(Value::as_str).any(|one| one == subscription)
            && world.subscriptions.iter().any(|(id, owner)| id == subscription && owner == tenant)
    };
    let is_asked = |text: &str| asked.iter().any(|one| one.eq_ignore_ascii_case(text));
    let machines = world.machines.iter().filter(|one| visible(&one.subscription));
    let own_tenant = Some(tenant).filter(|_| world.tells_tenant);
    let rows: Vec<Value> = match *kind {
        "microsoft.compute/virtualmachines" => machines
            .filter(|machine| {
                let by_identity = query.contains("identity.principalId");
                let id = if by_identity { &machine.principal_id } else { &machine.vm_id };
                !machine.is_uniform() && is_asked(id)
            })
            .map(|machine| machine.row(own_tenant))
            .collect(),
        "microsoft.network/networkinterfaces" => machines
            .filter(|machine| is_asked(&machine.id()))
            .flat_map(|machine| machine.interface_rows(visible))
            .collect(),
        "microsoft.compute/virtualmachinescalesets" => {
            let (subscription, _) = &world.subscriptions[0];
            let sets = world.scale_sets.iter().filter(|set| is_asked(&set.name));
            sets.map(|set| {
                let id = format!(
                    "/subscriptions/{subscription}/resourceGroups/{}/providers/Microsoft.Compute/virtualMachineScaleSets/{}",
                    set.group, set.name
                );
                json!({ "id": id, "tenantId": own_tenant })
            })
            .collect()
        }
        _ => return refuse(400, "InvalidQuery"),
    };
    let skip = body["options"]["$skipToken"].as_str().and_then(|token| token.parse().ok());
    let skip: usize = skip.unwrap_or(0);
    let end = rows.len().min(skip + world.page);
    let mut reply = json!({
        "totalRecords": rows.len(),
        "count": end - skip.min(end),
        "data": rows[skip.min(end)..end],
    });
    if end < rows.len() {
        reply["$skipToken"] = end.to_string().into();
    }
    answer(200, &reply)
}
