//! DescribeInstances.

use super::xml::{self, element, optional, text};
use super::{Caller, Instance, World, numbered};
use crate::http::Response;

const NAMESPACE: &str = "http://ec2.amazonaws.com/doc/2016-11-15/";

pub(super) fn describe_instances(
    fields: &[(String, String)],
    caller: &Caller,
    world: &World,
) -> Response {
    let ids = numbered(fields, "InstanceId");
    let own = |instance: &&Instance| {
        instance.account == caller.account && instance.region == caller.region
    };
    let own: Vec<&Instance> = world.instances.iter().filter(own).collect();
    let missing: Vec<&String> =
        ids.iter().filter(|id| own.iter().all(|instance| instance.id != **id)).collect();
    if !missing.is_empty() {
        let names: Vec<&str> = missing.iter().map(|id| id.as_str()).collect();
        let message = match names[..] {
            _ if world.silent => "The instance IDs do not exist".to_owned(),
            [name] => format!("The instance ID '{name}' does not exist"),
            _ => format!("The instance IDs '{}' do not exist", names.join(", ")),
        };
        return xml::error(400, "InvalidInstanceID.NotFound", &message);
    }
    let states = numbered(fields, "Filter.1.Value");
    let found = own.into_iter().filter(|instance| {
        ids.contains(&instance.id) && (states.is_empty() || states.contains(&instance.state))
    });
    let times = if world.doubled { 2 } else { 1 };
    let items = found.map(|instance| {
        let id = world.renamed.as_deref().unwrap_or(&instance.id);
        element("item", element("instancesSet", describe(instance, id))).repeat(times)
    });
    let reservations = element("reservationSet", items.collect::<String>());
    xml::answer(
        "DescribeInstancesResponse",
        NAMESPACE,
        &(text("requestId", "fake") + &reservations),
    )
}

fn describe(instance: &Instance, id: &str) -> String {
    let items = |name: &str, items: String| element(name, items);
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
    let parts = [
        text("instanceId", id),
        text("imageId", &instance.image),
        element("instanceState", text("code", "16") + &text("name", &instance.state)),
        text("instanceType", &instance.kind),
        text("vpcId", &instance.vpc),
        text("subnetId", &instance.subnet),
        text("rootDeviceType", &instance.root_device_type),
        optional("rootDeviceName", instance.root_device_name.as_deref()),
        items("blockDeviceMapping", volumes.collect()),
        items("networkInterfaceSet", interfaces.collect()),
        items("groupSet", groups.collect()),
        items("tagSet", tags.collect()),
        profile.unwrap_or_default(),
    ];
    element("item", parts.concat())
}
