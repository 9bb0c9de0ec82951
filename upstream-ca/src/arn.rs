//! Names of AWS's resources.

/// The region in which a resource is, where its name is an ARN that says so.
///
/// # Source
/// AWS General Reference, Amazon Resource Names: `arn:partition:service:region:account:resource`.
pub(crate) fn region(name: &str) -> Option<String> {
    let mut parts = name.splitn(6, ':');
    let (arn, region) = (parts.next()?, parts.nth(2)?);
    (arn == "arn" && !region.is_empty()).then(|| region.to_owned())
}
