//! DescribeAutoScalingGroups.

use super::xml::{self, element, text};
use super::{World, numbered};
use crate::http::Response;

const NAMESPACE: &str = "http://autoscaling.amazonaws.com/doc/2011-01-01/";

pub(super) fn describe_groups(fields: &[(String, String)], world: &World) -> Response {
    let names = numbered(fields, "AutoScalingGroupNames.member");
    let groups = world.scaling_groups.iter().filter(|(name, _)| names.contains(name));
    let groups = groups.map(|(name, instances)| {
        let instances = instances.iter().map(|id| {
            let parts = [
                text("InstanceId", id),
                text("AvailabilityZone", "us-west-2a"),
                text("LifecycleState", "InService"),
                text("HealthStatus", "Healthy"),
                text("ProtectedFromScaleIn", "false"),
            ];
            element("member", parts.concat())
        });
        let parts = [
            text("AutoScalingGroupName", name),
            text("MinSize", "0"),
            text("MaxSize", "9"),
            text("DesiredCapacity", "1"),
            text("DefaultCooldown", "300"),
            text("HealthCheckType", "EC2"),
            text("CreatedTime", "2026-01-01T00:00:00Z"),
            element("Instances", instances.collect::<String>()),
        ];
        element("member", parts.concat())
    });
    let groups = element("AutoScalingGroups", groups.collect::<String>());
    let result = element("DescribeAutoScalingGroupsResult", groups);
    xml::answer("DescribeAutoScalingGroupsResponse", NAMESPACE, &result)
}
