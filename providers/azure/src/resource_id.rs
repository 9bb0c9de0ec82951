//! IDs of resources in Azure Resource Manager, which mean the same whatever their case.

/// An ID taken apart:
/// `/subscriptions/<s>/resourceGroups/<g>/providers/<namespace>/<type>/<name>[/<type>/<name>…]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResourceId<'i> {
    pub(crate) subscription: &'i str,
    pub(crate) group: &'i str,
    /// The name of the resource, behind those of what it is a part of.
    pub(crate) names: Vec<&'i str>,
}

/// The type of virtual machines.
pub(crate) const VIRTUAL_MACHINE: &str = "Microsoft.Compute/virtualMachines";
/// The type of scale sets.
pub(crate) const SCALE_SET: &str = "Microsoft.Compute/virtualMachineScaleSets";
/// The type of network interfaces.
pub(crate) const INTERFACE: &str = "Microsoft.Network/networkInterfaces";
/// The type of network security groups.
pub(crate) const SECURITY_GROUP: &str = "Microsoft.Network/networkSecurityGroups";
/// The type of subnets.
pub(crate) const SUBNET: &str = "Microsoft.Network/virtualNetworks/subnets";

impl<'i> ResourceId<'i> {
    /// Reads the ID of a resource of `kind`, such as `Microsoft.Network/virtualNetworks/subnets`;
    /// `None` where `text` is something else. Names keep their case.
    pub(crate) fn parse(text: &'i str, kind: &str) -> Option<Self> {
        let mut parts = text.strip_prefix('/')?.split('/');
        let mut after = |word: &str| {
            let is_next = parts.next()?.eq_ignore_ascii_case(word);
            parts.next().filter(|name| is_next && is_name(name))
        };
        let subscription = after("subscriptions")?;
        let group = after("resourceGroups")?;
        let (namespace, types) = kind.split_once('/')?;
        let found = after("providers")?;
        if !found.eq_ignore_ascii_case(namespace) {
            return None;
        }
        let names = types.split('/').map(after).collect::<Option<Vec<_>>>()?;
        parts.next().is_none().then_some(Self { subscription, group, names })
    }

    /// The last of its names: that of the resource.
    pub(crate) fn name(&self) -> &'i str {
        self.names.last().copied().unwrap_or_default()
    }

    /// The same ID in the spelling that Azure's API documents.
    pub(crate) fn path(&self, kind: &str) -> String {
        let (namespace, types) = kind.split_once('/').unwrap_or((kind, ""));
        let (subscription, group) = (self.subscription, self.group);
        let mut path =
            format!("/subscriptions/{subscription}/resourceGroups/{group}/providers/{namespace}");
        for (kind, name) in types.split('/').zip(&self.names) {
            path = format!("{path}/{kind}/{name}");
        }
        path
    }
}

/// Whether it can stand in a path as it is, and for nothing else.
fn is_name(name: &str) -> bool {
    let allowed = |letter: char| letter.is_alphanumeric() || "-_.()".contains(letter);
    !name.is_empty() && name.chars().all(allowed) && !matches!(name, "." | "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "/subscriptions/s-1/resourceGroups/Frontend/providers/Microsoft.Compute/\
                      virtualMachines/Blog";

    #[test]
    fn case_matters_in_names_alone() {
        for id in [
            ID,
            "/SUBSCRIPTIONS/s-1/resourcegroups/Frontend/Providers/microsoft.compute/VIRTUALMACHINES/Blog",
        ] {
            let read = ResourceId::parse(id, VIRTUAL_MACHINE).unwrap();
            assert_eq!((read.subscription, read.group, read.name()), ("s-1", "Frontend", "Blog"));
            assert_eq!(read.path(VIRTUAL_MACHINE), ID);
        }
        let subnet = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/\
                      virtualNetworks/net/subnets/default";
        assert_eq!(ResourceId::parse(subnet, SUBNET).unwrap().names, ["net", "default"]);
    }

    #[test]
    fn what_is_no_such_id_is_refused() {
        for id in [
            "",
            "/",
            &ID[1..],
            &format!("{ID}/"),
            &format!("{ID}/extensions/x"),
            &ID.replace("Blog", ""),
            &ID.replace("Blog", ".."),
            &ID.replace("Blog", "a?b"),
            &ID.replace("Blog", "a%2fb"),
            &ID.replace("virtualMachines", "disks"),
            &ID.replace("Microsoft.Compute", "Microsoft.Evil"),
        ] {
            assert_eq!(ResourceId::parse(id, VIRTUAL_MACHINE), None, "{id}");
        }
    }
}
