//! DescribeInstances.

use std::collections::{BTreeMap, HashMap};

use super::call::{Call, Caller, Refusal, page};
use super::xml::{element, optional, text};
use super::{Instance, World};
use crate::http::Response;

const NAMESPACE: &str = "http://ec2.amazonaws.com/doc/2016-11-15/";

pub(super) fn describe_instances(
    call: &Call<'_>,
    caller: &Caller,
    world: &World,
) -> Result<Response, Refusal> {
    let ids = call.numbered("InstanceId");
    let wanted = max_results(call, &ids)?;
    let states = states(call)?;
    let own = world
        .instances
        .iter()
        .filter(|instance| instance.account == caller.account && instance.region == caller.region);
    let asked = match ids.is_empty() {
        true => own.collect(),
        false => with_ids(own, &ids, world.silent)?,
    };
    let is_in_state = |instance: &&Instance| match &states {
        Some(states) => states.contains(&instance.state.as_str()),
        None => true,
    };
    let found: Vec<&Instance> = asked.into_iter().filter(is_in_state).collect();
    let (found, next) =
        page(&found, Some(call.field("NextToken")), wanted, world.instances_per_page);
    let times = if world.doubled { 2 } else { 1 };
    let items = found.iter().map(|instance| {
        let id = world.renamed.as_deref().unwrap_or(&instance.id);
        let owner = text("reservationId", "r-0fa4e") + &text("ownerId", &instance.account);
        let instances = element("instancesSet", describe(instance, id));
        element("item", owner + &instances).repeat(times)
    });
    let reservations = element("reservationSet", items.collect::<String>());
    Ok(call.xml(NAMESPACE, &(reservations + &optional("nextToken", next.as_deref()))))
}

/// How many instances the caller wants on a page.
fn max_results(call: &Call<'_>, ids: &[&str]) -> Result<Option<usize>, Refusal> {
    let wanted = call.field("MaxResults");
    if wanted.is_empty() {
        return Ok(None);
    }
    if !ids.is_empty() {
        let message = "The parameter instancesSet cannot be used with the parameter maxResults";
        return Err(Refusal::new(400, "InvalidParameterCombination", message));
    }
    match wanted.parse() {
        Ok(wanted @ 5..=1000) => Ok(Some(wanted)),
        _ => {
            let message = format!("Value ( {wanted} ) for parameter maxResults is invalid");
            Err(Refusal::new(400, "InvalidParameterValue", message))
        }
    }
}

/// The states that the filters let through; `None` for all.
fn states<'c>(call: &'c Call<'_>) -> Result<Option<Vec<&'c str>>, Refusal> {
    let mut states = None;
    for number in 1.. {
        match call.field(&format!("Filter.{number}.Name")) {
            "" => break,
            "instance-state-name" => {
                states = Some(call.numbered(&format!("Filter.{number}.Value")));
            }
            other => {
                let message = format!("The filter '{other}' is invalid");
                return Err(Refusal::new(400, "InvalidParameterValue", message));
            }
        }
    }
    Ok(states)
}

/// The instances with these IDs, or none of them where one is not known.
fn with_ids<'w>(
    own: impl Iterator<Item = &'w Instance>,
    ids: &[&str],
    silent: bool,
) -> Result<Vec<&'w Instance>, Refusal> {
    if let Some(malformed) = ids.iter().find(|id| !is_id(id)) {
        let message = format!("Invalid id: \"{malformed}\"");
        return Err(Refusal::new(400, "InvalidInstanceID.Malformed", message));
    }
    let places: HashMap<&str, usize> =
        ids.iter().enumerate().map(|(place, id)| (*id, place)).collect();
    let mut found = BTreeMap::new();
    for instance in own {
        if let Some(place) = places.get(instance.id.as_str()) {
            found.insert(*place, instance);
        }
    }
    if found.len() == places.len() {
        return Ok(found.into_values().collect());
    }
    let missing = ids.iter().enumerate().filter(|(place, id)| {
        // An ID that is there twice is told once.
        places[**id] == *place && !found.contains_key(place)
    });
    let missing: Vec<&str> = missing.map(|(_, id)| *id).collect();
    let message = match missing[..] {
        _ if silent => "The instance IDs do not exist".to_owned(),
        [id] => format!("The instance ID '{id}' does not exist"),
        _ => format!("The instance IDs '{}' do not exist", missing.join(", ")),
    };
    Err(Refusal::new(400, "InvalidInstanceID.NotFound", message))
}

/// Whether `id` looks like the ID of an instance: of today, or of before 2016.
fn is_id(id: &str) -> bool {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let digits = id.strip_prefix("i-").unwrap_or_default();
    matches!(digits.len(), 8 | 17) && digits.bytes().all(is_digit)
}

fn state_code(state: &str) -> &'static str {
    match state {
        "pending" => "0",
        "shutting-down" => "32",
        "terminated" => "48",
        "stopping" => "64",
        "stopped" => "80",
        _ => "16",
    }
}

fn describe(instance: &Instance, id: &str) -> String {
    let volumes = instance.volumes.iter().map(|volume| {
        let attached = optional("attachTime", volume.attached.as_deref());
        let ebs = if volume.ebs { element("ebs", attached) } else { String::new() };
        element("item", text("deviceName", &volume.device) + &ebs)
    });
    let interfaces = instance.interfaces.iter().map(|interface| {
        let attachment = interface.index.map(|index| {
            let index = text("deviceIndex", &index.to_string());
            let attached = optional("attachTime", interface.attached.as_deref());
            element("attachment", index + &attached)
        });
        element("item", attachment.unwrap_or_default())
    });
    let groups = instance
        .groups
        .iter()
        .map(|(id, name)| element("item", text("groupId", id) + &text("groupName", name)));
    let tags = instance
        .tags
        .iter()
        .map(|(key, value)| element("item", text("key", key) + &text("value", value)));
    let profile = instance.profile.as_deref();
    let profile = profile.map(|arn| element("iamInstanceProfile", text("arn", arn)));
    let state = text("code", state_code(&instance.state)) + &text("name", &instance.state);
    let parts = [
        text("instanceId", id),
        text("imageId", &instance.image),
        element("instanceState", state),
        text("instanceType", &instance.kind),
        text("launchTime", &instance.launched),
        element("placement", text("availabilityZone", &instance.zone)),
        text("privateIpAddress", &instance.private_ip),
        text("vpcId", &instance.vpc),
        text("subnetId", &instance.subnet),
        text("rootDeviceType", &instance.root_device_type),
        optional("rootDeviceName", instance.root_device_name.as_deref()),
        element("blockDeviceMapping", volumes.collect::<String>()),
        element("networkInterfaceSet", interfaces.collect::<String>()),
        element("groupSet", groups.collect::<String>()),
        element("tagSet", tags.collect::<String>()),
        profile.unwrap_or_default(),
    ];
    element("item", parts.concat())
}
