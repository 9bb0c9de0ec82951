//! Whether an instance still has the root volume that it started with: the volume and the first
//! network interface are attached together when an instance starts, and a volume that was taken
//! out, altered and put back is attached later.

use crate::api::Instance;

/// How far both times may be apart, in seconds.
const MAX_APART: i64 = 60;
/// Roots that are part of the machine and cannot be taken out.
const INSTANCE_STORE: &str = "instance-store";

/// # Errors
/// A sentence that says what is missing or apart.
pub(crate) fn check(instance: &Instance) -> Result<(), String> {
    let interface = instance.interfaces.iter().find(|interface| interface.device_index == 0);
    let interface = interface.ok_or("no network interface is attached at device index 0")?;
    if instance.root_device_type.as_deref() == Some(INSTANCE_STORE) {
        return Ok(());
    }
    let root = instance.root_device_name.as_deref().ok_or("the root device has no name")?;
    let volume = instance.volumes.iter().find(|volume| volume.device_name == root);
    let volume = volume.ok_or_else(|| format!("no EBS volume is attached as {root:?}"))?;
    let unknown = "it is not known when it was attached";
    let began = interface.attached.ok_or(format!("network interface 0: {unknown}"))?;
    let attached = volume.attached.ok_or(format!("root volume: {unknown}"))?;
    let apart = began.abs_diff(attached);
    if apart > MAX_APART.unsigned_abs() {
        return Err(format!(
            "root volume and network interface 0 were attached {apart} s apart, more than \
             {MAX_APART} s: the volume may have been taken out and altered; where it was replaced \
             on purpose, skip_block_device or account_ids_for_local_validation leave this check out"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Interface, Volume};

    fn instance() -> Instance {
        Instance {
            root_device_type: Some("ebs".to_owned()),
            root_device_name: Some("/dev/xvda".to_owned()),
            volumes: vec![Volume { device_name: "/dev/xvda".to_owned(), attached: Some(1000) }],
            interfaces: vec![Interface { device_index: 0, attached: Some(1000) }],
            ..Instance::default()
        }
    }

    #[test]
    fn times_may_be_a_minute_apart() {
        for (attached, holds) in [(1060, true), (1061, false), (940, true), (939, false)] {
            let mut instance = instance();
            instance.volumes[0].attached = Some(attached);
            assert_eq!(check(&instance).is_ok(), holds, "{attached}");
        }
        let mut instance = instance();
        instance.volumes[0].attached = Some(i64::MIN);
        check(&instance).unwrap_err();
    }
}
