//! Machines and scale sets, and how Azure tells of them.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::SUBSCRIPTION;

/// A virtual machine, of its own or in a scale set.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The subscription.
    pub subscription: String,
    /// The resource group.
    pub group: String,
    /// The name.
    pub name: String,
    /// The UUID that Azure gives it.
    pub vm_id: String,
    /// The region.
    pub location: String,
    /// Its tags.
    pub tags: Map<String, Value>,
    /// The ID of its own managed identity.
    pub principal_id: String,
    /// Its network interfaces.
    pub interfaces: Vec<Interface>,
    /// The scale set that it is in.
    pub membership: Membership,
    /// When it was made.
    pub created: Timestamp,
    /// Whether Azure writes its IDs in upper case here and there.
    pub shouts: bool,
}

/// How a machine is in a scale set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Membership {
    /// It is in none.
    None,
    /// A set of that name, whose members are machines of their own.
    Flexible(String),
    /// A set of that name, whose members are known to it alone.
    Uniform(String),
}

/// A network interface.
#[derive(Debug, Clone)]
pub struct Interface {
    /// The subscription that it is in, where that is another.
    pub subscription: Option<String>,
    /// The name of its security group.
    pub security_group: Option<String>,
    /// Its virtual network and its subnet.
    pub subnet: (String, String),
}

/// A scale set.
#[derive(Debug, Clone)]
pub struct ScaleSet {
    /// The resource group.
    pub group: String,
    /// The name.
    pub name: String,
}

impl Machine {
    /// A machine with one interface, two tags and an identity of its own.
    pub fn new(name: &str) -> Self {
        let id = || uuid::Uuid::new_v4().to_string();
        let tags = json!({ "environment": "production", "owner": "web" });
        Self {
            subscription: SUBSCRIPTION.to_owned(),
            group: "frontend".to_owned(),
            name: name.to_owned(),
            vm_id: id(),
            location: "westeurope".to_owned(),
            tags: tags.as_object().cloned().unwrap_or_default(),
            principal_id: id(),
            interfaces: vec![Interface {
                subscription: None,
                security_group: Some("webservers".to_owned()),
                subnet: ("vnet".to_owned(), "default".to_owned()),
            }],
            membership: Membership::None,
            created: Timestamp::now(),
            shouts: false,
        }
    }

    /// The same in a scale set.
    #[must_use]
    pub fn in_set(mut self, membership: Membership) -> Self {
        self.membership = membership;
        self
    }

    /// The name of its scale set.
    pub(crate) fn set_name(&self) -> Option<&str> {
        match &self.membership {
            Membership::None => None,
            Membership::Flexible(name) | Membership::Uniform(name) => Some(name),
        }
    }

    pub(crate) fn is_uniform(&self) -> bool {
        matches!(self.membership, Membership::Uniform(_))
    }

    fn below(&self, rest: &str) -> String {
        format!(
            "/subscriptions/{}/resourceGroups/{}/providers/{rest}",
            self.subscription, self.group
        )
    }

    pub(crate) fn id(&self) -> String {
        self.below(&format!("Microsoft.Compute/virtualMachines/{}", self.name))
    }

    /// Its row in Resource Graph.
    pub(crate) fn row(&self, tenant: Option<&str>) -> Value {
        let set = match &self.membership {
            Membership::Flexible(name) => {
                let id = format!("Microsoft.Compute/virtualMachineScaleSets/{name}");
                json!({ "id": self.below(&id) })
            }
            _ => Value::Null,
        };
        let mut row = json!({
            "id": self.id(),
            "name": self.name,
            "location": self.location,
            "tags": self.tags,
            "resourceGroup": self.group,
            "subscriptionId": self.subscription,
            "vmId": if self.shouts { self.vm_id.to_uppercase() } else { self.vm_id.clone() },
            "timeCreated": self.created.to_string(),
            "scaleSet": set,
            "principal": self.principal_id.to_lowercase(),
            "interfaces": self.references(),
        });
        if let Some(tenant) = tenant {
            row["tenantId"] = tenant.into();
        }
        row
    }

    /// The rows of its interfaces in Resource Graph: of those in subscriptions that are visible.
    pub(crate) fn interface_rows(&self, visible: impl Fn(&str) -> bool) -> Vec<Value> {
        let id = self.id().to_lowercase();
        let seen = self.interfaces.iter().filter(|interface| {
            visible(interface.subscription.as_ref().unwrap_or(&self.subscription))
        });
        let rows =
            seen.map(|interface| json!({ "machine": id, "properties": self.interface(interface) }));
        rows.collect()
    }

    fn references(&self) -> Vec<Value> {
        let interfaces = 0..self.interfaces.len();
        interfaces.map(|at| json!({ "id": self.interface_id(at) })).collect()
    }

    /// What Resource Manager says of it.
    pub(crate) fn resource(&self) -> Value {
        json!({
            "id": self.id(),
            "name": self.name,
            "location": self.location,
            "properties": {
                "vmId": self.vm_id,
                "timeCreated": self.created.to_string(),
                "networkProfile": { "networkInterfaces": self.references() },
            },
        })
    }

    /// What Resource Manager says of it as a member of a Uniform scale set.
    pub(crate) fn member(&self) -> Value {
        let interfaces = self.interfaces.iter();
        let interfaces = interfaces
            .map(|interface| json!({ "name": "nic", "properties": self.interface(interface) }));
        json!({
            "name": self.name,
            "location": self.location,
            "tags": self.tags,
            "properties": {
                "vmId": self.vm_id,
                "timeCreated": self.created.to_string(),
                "networkProfileConfiguration": {
                    "networkInterfaceConfigurations": interfaces.collect::<Vec<_>>(),
                },
            },
        })
    }

    /// The ID of its interface number `at`.
    pub(crate) fn interface_id(&self, at: usize) -> String {
        let id = self.below(&format!("Microsoft.Network/networkInterfaces/{}-nic-{at}", self.name));
        match &self.interfaces[at].subscription {
            Some(other) => id.replace(&self.subscription, other),
            None => id,
        }
    }

    /// The properties of an interface.
    pub(crate) fn interface(&self, interface: &Interface) -> Value {
        let (network, subnet) = &interface.subnet;
        let subnet = format!("Microsoft.Network/virtualNetworks/{network}/subnets/{subnet}");
        let group = interface.security_group.as_ref().map(|name| {
            let id = self.below(&format!("Microsoft.Network/networkSecurityGroups/{name}"));
            json!({ "id": if self.shouts { id.to_lowercase() } else { id } })
        });
        let mut properties = json!({
            "ipConfigurations": [{ "properties": { "subnet": { "id": self.below(&subnet) } } }],
        });
        if let Some(group) = group {
            properties["networkSecurityGroup"] = group;
        }
        properties
    }
}

impl ScaleSet {
    /// A scale set in the resource group of machines.
    pub fn new(name: &str) -> Self {
        Self { group: "frontend".to_owned(), name: name.to_owned() }
    }
}
