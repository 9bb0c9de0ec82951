//! Network interfaces, which look alike in all of Azure's answers, and the selectors of them.

use serde::Deserialize;

use crate::resource_id::{ResourceId, SECURITY_GROUP, SUBNET};

/// The properties of an interface that say where it is. Anything may be missing.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Interface {
    network_security_group: Option<Reference>,
    ip_configurations: Option<Vec<IpConfiguration>>,
}

/// A resource that another one names.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Reference {
    pub(crate) id: String,
}

/// A resource whose properties alone are read.
#[derive(Deserialize)]
pub(crate) struct Whole<T> {
    pub(crate) properties: T,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct IpConfiguration {
    properties: Option<Subnet>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Subnet {
    subnet: Option<Reference>,
}

impl Interface {
    /// Its security group, if it has one that can be read.
    pub(crate) fn security_group(&self) -> Option<ResourceId<'_>> {
        let group = self.network_security_group.as_ref()?;
        ResourceId::parse(&group.id, SECURITY_GROUP)
    }

    /// The subnets of its addresses; the first name of each is that of its virtual network.
    pub(crate) fn subnets(&self) -> impl Iterator<Item = ResourceId<'_>> {
        self.ip_configurations
            .iter()
            .flatten()
            .filter_map(|configuration| configuration.properties.as_ref()?.subnet.as_ref())
            .filter_map(|subnet| ResourceId::parse(&subnet.id, SUBNET))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_no_error() {
        for text in [
            "{}",
            r#"{"networkSecurityGroup":null,"ipConfigurations":null}"#,
            r#"{"networkSecurityGroup":{},"ipConfigurations":[{},{"properties":null}]}"#,
            r#"{"networkSecurityGroup":{"id":"x"},"ipConfigurations":[{"properties":{"subnet":{"id":"/"}}}]}"#,
        ] {
            let interface: Interface = serde_json::from_str(text).unwrap();
            assert!(interface.security_group().is_none() && interface.subnets().next().is_none());
        }
    }
}
