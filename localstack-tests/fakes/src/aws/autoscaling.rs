//! DescribeAutoScalingGroups.

use super::World;
use super::call::{Call, page};
use super::xml::{element, optional, text};
use crate::http::Response;

const NAMESPACE: &str = "http://autoscaling.amazonaws.com/doc/2011-01-01/";

pub(super) fn describe_groups(call: &Call<'_>, world: &World) -> Response {
    let names = call.numbered("AutoScalingGroupNames.member");
    let is_asked = |name: &str| names.is_empty() || names.contains(&name);
    let groups: Vec<_> = world.scaling_groups.iter().filter(|(name, _)| is_asked(name)).collect();
    let wanted = call.field("MaxRecords").parse().ok();
    let (groups, next) = page(&groups, Some(call.field("NextToken")), wanted, world.page_size);
    let groups = groups.iter().map(|(name, instances)| {
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
    call.xml(NAMESPACE, &(groups + &optional("NextToken", next.as_deref())))
}
