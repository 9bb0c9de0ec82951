//! An instance: what its document says, and what EC2 knows of it.

use std::net::Ipv4Addr;

use serde_json::Value;

/// The tag by which an Auto Scaling group marks the instances that it has started.
pub const SCALING_GROUP_TAG: &str = "aws:autoscaling:groupName";

/// An instance. As it is made it passes every check; each field may be changed.
#[derive(Debug, Clone)]
pub struct Instance {
    /// The account that owns it.
    pub account: String,
    /// Its region.
    pub region: String,
    /// Its ID.
    pub id: String,
    /// The zone that its document names.
    pub zone: String,
    /// Its image.
    pub image: String,
    /// Its type.
    pub kind: String,
    /// When it was launched, as its document says it.
    pub launched: String,
    /// `running`, `stopped` and so on.
    pub state: String,
    /// `ebs` or `instance-store`.
    pub root_device_type: String,
    /// The name of its root device, where it has one.
    pub root_device_name: Option<String>,
    /// Its block devices.
    pub volumes: Vec<Volume>,
    /// Its network interfaces, in the order in which they are told.
    pub interfaces: Vec<Interface>,
    /// Keys and values.
    pub tags: Vec<(String, String)>,
    /// IDs and names of its security groups.
    pub groups: Vec<(String, String)>,
    /// The ARN of its instance profile.
    pub profile: Option<String>,
    /// Its VPC.
    pub vpc: String,
    /// Its subnet.
    pub subnet: String,
    /// Its address within the subnet.
    pub private_ip: String,
}

/// A block device.
#[derive(Debug, Clone)]
pub struct Volume {
    /// Its name.
    pub device: String,
    /// Whether it is a volume of EBS.
    pub ebs: bool,
    /// When it was attached.
    pub attached: Option<String>,
}

/// A network interface.
#[derive(Debug, Clone)]
pub struct Interface {
    /// Its device index; `None` where it is not attached.
    pub index: Option<i32>,
    /// When it was attached.
    pub attached: Option<String>,
}

impl Instance {
    /// An instance that runs.
    pub fn new(account: &str, region: &str, id: &str) -> Self {
        let launched = "2026-02-16T00:38:27Z".to_owned();
        let attached = Some(launched.clone());
        Self {
            account: account.to_owned(),
            region: region.to_owned(),
            id: id.to_owned(),
            zone: format!("{region}a"),
            image: "ami-0cbde744623b7506b".to_owned(),
            kind: "t4g.small".to_owned(),
            launched,
            state: "running".to_owned(),
            root_device_type: "ebs".to_owned(),
            root_device_name: Some("/dev/xvda".to_owned()),
            volumes: vec![Volume {
                device: "/dev/xvda".to_owned(),
                ebs: true,
                attached: attached.clone(),
            }],
            interfaces: vec![Interface { index: Some(0), attached }],
            tags: Vec::new(),
            groups: Vec::new(),
            profile: None,
            vpc: "vpc-0a1b2c3d".to_owned(),
            subnet: "subnet-0a1b2c3d".to_owned(),
            private_ip: "10.0.1.242".to_owned(),
        }
    }

    /// So many instances like this one, which have IDs and addresses of their own.
    pub fn fleet(&self, size: u32) -> impl Iterator<Item = Self> + '_ {
        (0..size).map(|number| Self {
            id: format!("i-{number:017x}"),
            private_ip: Ipv4Addr::from_bits(0x0a01_0000 + number).to_string(),
            ..self.clone()
        })
    }

    /// The Auto Scaling group that has started it.
    pub fn scaling_group(&self) -> Option<&str> {
        let tag = self.tags.iter().find(|(key, _)| key == SCALING_GROUP_TAG);
        tag.map(|(_, group)| group.as_str())
    }

    /// Its identity document, laid out as EC2 does.
    pub fn document(&self) -> String {
        let text = |text: &str| Value::from(text).to_string();
        let members = [
            ("accountId", text(&self.account)),
            ("architecture", text("arm64")),
            ("availabilityZone", text(&self.zone)),
            ("billingProducts", "null".to_owned()),
            ("devpayProductCodes", "null".to_owned()),
            ("marketplaceProductCodes", "null".to_owned()),
            ("imageId", text(&self.image)),
            ("instanceId", text(&self.id)),
            ("instanceType", text(&self.kind)),
            ("kernelId", "null".to_owned()),
            ("pendingTime", text(&self.launched)),
            ("privateIp", text(&self.private_ip)),
            ("ramdiskId", "null".to_owned()),
            ("region", text(&self.region)),
            ("version", text("2017-09-30")),
        ];
        let lines = members.map(|(name, value)| format!("  \"{name}\" : {value}"));
        format!("{{\n{}\n}}", lines.join(",\n"))
    }
}
