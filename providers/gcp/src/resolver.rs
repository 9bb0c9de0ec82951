//! Selectors of an instance that has proven itself.

use spire_core::node::AttestError;
use spire_core::selector::Selector;

use crate::NAME;
use crate::api::Described;
use crate::token::InstanceToken;

/// The selectors of what the token says and, where the Compute API was asked, of what that says.
///
/// # Errors
/// `Refused` where a value of the instance's metadata is longer than `max_metadata_value` bytes:
/// to cut it or to leave it out would let the node be taken for another.
pub(crate) fn selectors(
    token: &InstanceToken,
    described: Option<&Described>,
    max_metadata_value: usize,
) -> Result<Vec<Selector>, AttestError> {
    let instance = &token.instance;
    let mut values = vec![
        format!("project-id:{}", instance.project_id),
        format!("zone:{}", instance.zone),
        format!("instance-name:{}", instance.name),
        format!("sa:{}", token.email),
    ];
    if let Some(described) = described {
        values.extend(described.tags.iter().map(|tag| format!("tag:{tag}")));
        let labels = described.labels.iter();
        values.extend(labels.map(|(key, value)| format!("label:{key}:{value}")));
        for (key, value) in &described.metadata {
            if value.len() > max_metadata_value {
                return Err(AttestError::Refused(format!(
                    "metadata value of key {key:?} has {} bytes, which exceeds \
                     max_metadata_value_size ({max_metadata_value})",
                    value.len()
                )));
            }
            values.push(format!("metadata:{key}:{value}"));
        }
    }
    let selectors = values.iter().map(|value| Selector::new(NAME, value));
    selectors.collect::<Result<_, _>>().map_err(|error| AttestError::Refused(error.to_string()))
}
