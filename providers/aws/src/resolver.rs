//! An instance that has proven itself → selectors.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use spire_core::node::{AttestError, Examination, NodeResolver};
use spire_core::selector::Selector;

use crate::NAME;
use crate::api::{Account, Instance, profile_name};
use crate::config::SelectorConfig;
use crate::document::Document;
use crate::server::{QUESTIONS, too_late};

/// The tag that Auto Scaling sets; nobody else may set tags that begin with `aws:`.
const SCALING_GROUP_TAG: &str = "aws:autoscaling:groupName";

/// What is known of an instance, and who knows more.
pub(crate) struct Resolver {
    pub(crate) document: Document,
    pub(crate) instance: Arc<Instance>,
    pub(crate) account: Arc<Account>,
    pub(crate) selectors: SelectorConfig,
}

#[async_trait]
impl NodeResolver for Resolver {
    async fn selectors(&self, examination: &mut Examination) -> Result<Vec<Selector>, AttestError> {
        let mut values = BTreeSet::new();
        self.add_document(&mut values);
        self.add_instance(&mut values);
        if self.selectors.extra {
            self.add_extra(&mut values);
        }
        if let Some(arn) = self.instance.profile.as_deref().filter(|_| self.selectors.roles) {
            let roles = tokio::time::timeout(QUESTIONS, self.roles(arn, examination)).await;
            let roles = roles.unwrap_or_else(|_| Err(too_late()));
            let roles = examination.check("instance profile", roles)?;
            values.extend(roles.iter().map(|role| format!("iamrole:{role}")));
        }
        let selectors = values.iter().map(|value| Selector::new(NAME, value));
        let selectors = selectors.collect::<Result<_, _>>();
        let selectors = selectors.map_err(|error| AttestError::Refused(error.to_string()));
        examination.check("selectors", selectors)
    }
}

impl Resolver {
    fn add_document(&self, values: &mut BTreeSet<String>) {
        let Document { account_id, region, instance_id, availability_zone, image_id, .. } =
            &self.document;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        values.extend([
            format!("account_id:{account_id}"),
            format!("az:{}", text(availability_zone)),
            format!("image:id:{}", text(image_id)),
            format!("instance:id:{instance_id}"),
            format!("region:{region}"),
        ]);
    }

    fn add_instance(&self, values: &mut BTreeSet<String>) {
        let tags = self.instance.tags.iter();
        values.extend(tags.map(|(key, value)| format!("tag:{key}:{value}")));
        for (id, name) in &self.instance.security_groups {
            values.extend(id.iter().map(|id| format!("sg:id:{id}")));
            values.extend(name.iter().map(|name| format!("sg:name:{name}")));
        }
    }

    fn add_extra(&self, values: &mut BTreeSet<String>) {
        let Instance { vpc_id, subnet_id, instance_type, tags, .. } = &*self.instance;
        values.extend(vpc_id.iter().map(|id| format!("vpc:id:{id}")));
        values.extend(subnet_id.iter().map(|id| format!("subnet:id:{id}")));
        values.extend(instance_type.iter().map(|kind| format!("instance:type:{kind}")));
        let groups = tags.iter().filter(|(key, _)| key == SCALING_GROUP_TAG);
        values.extend(groups.map(|(_, name)| format!("asg:name:{name}")));
    }

    async fn roles(
        &self,
        arn: &str,
        examination: &mut Examination,
    ) -> Result<Arc<[String]>, AttestError> {
        let name = profile_name(arn).ok_or_else(|| {
            AttestError::Unavailable(format!("{arn:?} is not the ARN of an instance profile"))
        })?;
        match self.account.profiles.roles(name).await {
            Ok(roles) => {
                examination.asked(roles.request_id.as_deref());
                Ok(roles.arns)
            }
            // Be it that IAM knows no such profile: a new one is not known everywhere at once.
            Err(error) => {
                examination.asked(error.request_id.as_deref());
                Err(error.into())
            }
        }
    }
}
