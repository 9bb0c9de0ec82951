//! The roles of an instance profile.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_iam::operation::RequestId;
use moka::future::Cache;
use tokio::sync::Semaphore;

use super::CloudError;

/// How long the roles of a profile are remembered: long enough for a fleet that boots, short enough
/// that the next one gets what was changed.
const GOOD_FOR: Duration = Duration::from_secs(120);
/// Most profiles that are remembered.
const MOST: u64 = 1000;
/// Most calls under way in one account.
const PARALLEL: usize = 8;

/// A profile's roles, and what IAM called the request.
#[derive(Debug, Clone)]
pub(crate) struct Roles {
    /// Their ARNs.
    pub(crate) arns: Arc<[String]>,
    pub(crate) request_id: Option<Arc<str>>,
}

/// The instance profiles of an account.
pub(crate) struct Profiles {
    client: aws_sdk_iam::Client,
    known: Cache<String, Roles>,
    calls: Semaphore,
}

impl Profiles {
    pub(super) fn new(client: aws_sdk_iam::Client) -> Self {
        let known = Cache::builder().max_capacity(MOST).time_to_live(GOOD_FOR).build();
        Self { client, known, calls: Semaphore::new(PARALLEL) }
    }

    /// The roles of the profile called `name`. However many ask at once, IAM is asked once.
    ///
    /// # Errors
    /// Where IAM cannot be asked, or knows no such profile.
    pub(crate) async fn roles(&self, name: &str) -> Result<Roles, CloudError> {
        let known = self.known.try_get_with_by_ref(name, self.ask(name)).await;
        known.map_err(|error| CloudError::clone(&error))
    }

    async fn ask(&self, name: &str) -> Result<Roles, CloudError> {
        // The semaphore is never closed.
        let _call = self.calls.acquire().await;
        let call = self.client.get_instance_profile().instance_profile_name(name);
        let answer = call.send().await;
        let answer = answer.map_err(|error| CloudError::of("GetInstanceProfile", &error))?;
        let request_id = answer.request_id().map(Arc::from);
        let roles = answer.instance_profile().map(|profile| profile.roles()).unwrap_or_default();
        Ok(Roles { arns: roles.iter().map(|role| role.arn().to_owned()).collect(), request_id })
    }
}

/// The name of a profile: what stands last in its ARN, after any path.
pub(crate) fn profile_name(arn: &str) -> Option<&str> {
    let (_, resource) = arn.rsplit_once(':')?;
    let (kind, name) = resource.split_once('/')?;
    let name = name.rsplit('/').next().filter(|name| !name.is_empty())?;
    (kind == "instance-profile").then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_stands_after_the_path() {
        for (arn, name) in [
            ("arn:aws:iam::123456789012:instance-profile/Blog", Some("Blog")),
            ("arn:aws-cn:iam::123456789012:instance-profile/team/web/Blog", Some("Blog")),
            ("arn:aws:iam::123456789012:role/Blog", None),
            ("arn:aws:iam::123456789012:instance-profile/", None),
            ("Blog", None),
        ] {
            assert_eq!(profile_name(arn), name, "{arn}");
        }
    }
}
