//! The instances of EKS clusters: those in the Auto Scaling groups of their managed node groups.

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_eks::error::ProvideErrorMetadata;

use super::CloudError;
use crate::members::List;

/// How long a list is good.
pub(super) const GOOD_FOR: Duration = Duration::from_secs(30);
/// Most pages of one list.
const MAX_PAGES: usize = 200;
/// Most Auto Scaling groups that are asked for in one call.
const GROUPS: usize = 50;

/// The instances of some clusters.
pub(super) struct ClusterNodes {
    eks: aws_sdk_eks::Client,
    groups: aws_sdk_autoscaling::Client,
    clusters: Vec<String>,
}

impl ClusterNodes {
    pub(super) fn new(
        eks: aws_sdk_eks::Client,
        groups: aws_sdk_autoscaling::Client,
        clusters: Vec<String>,
    ) -> Self {
        Self { eks, groups, clusters }
    }

    /// The names of a cluster's node groups; none where this account and region has no such cluster.
    async fn node_groups(&self, cluster: &str) -> Result<Vec<String>, CloudError> {
        let mut names = Vec::new();
        let mut next = None;
        for _ in 0..MAX_PAGES {
            let call = self.eks.list_nodegroups().cluster_name(cluster);
            let page = match call.set_next_token(next.take()).send().await {
                Ok(page) => page,
                Err(error) if error.code() == Some("ResourceNotFoundException") => {
                    return Ok(names);
                }
                Err(error) => return Err(CloudError::of("ListNodegroups", &error)),
            };
            names.extend(page.nodegroups().iter().cloned());
            next = page.next_token().filter(|token| !token.is_empty()).map(ToOwned::to_owned);
            if next.is_none() {
                return Ok(names);
            }
        }
        Err(CloudError::new(format!("ListNodegroups gave more than {MAX_PAGES} pages")))
    }

    async fn scaling_groups(
        &self,
        cluster: &str,
        node_group: &str,
    ) -> Result<Vec<String>, CloudError> {
        let call = self.eks.describe_nodegroup().cluster_name(cluster).nodegroup_name(node_group);
        let answer = call.send().await;
        let answer = answer.map_err(|error| CloudError::of("DescribeNodegroup", &error))?;
        let resources = answer.nodegroup().and_then(|group| group.resources());
        let groups = resources.map(|resources| resources.auto_scaling_groups()).unwrap_or_default();
        Ok(groups.iter().filter_map(|group| group.name().map(ToOwned::to_owned)).collect())
    }

    async fn instances(
        &self,
        groups: &[String],
        instances: &mut HashSet<String>,
    ) -> Result<(), CloudError> {
        let call = self.groups.describe_auto_scaling_groups();
        let call = call.set_auto_scaling_group_names(Some(groups.to_vec()));
        let mut next = None;
        for _ in 0..MAX_PAGES {
            let page = call.clone().set_next_token(next.take()).send().await;
            let page = page.map_err(|error| CloudError::of("DescribeAutoScalingGroups", &error))?;
            let groups = page.auto_scaling_groups().iter();
            let found = groups.flat_map(|group| group.instances());
            instances.extend(found.filter_map(|one| one.instance_id().map(ToOwned::to_owned)));
            next = page.next_token().filter(|token| !token.is_empty()).map(ToOwned::to_owned);
            if next.is_none() {
                return Ok(());
            }
        }
        Err(CloudError::new(format!("DescribeAutoScalingGroups gave more than {MAX_PAGES} pages")))
    }
}

#[async_trait]
impl List for ClusterNodes {
    async fn read(&self) -> Result<HashSet<String>, CloudError> {
        let mut groups = Vec::new();
        for cluster in &self.clusters {
            for node_group in self.node_groups(cluster).await? {
                groups.extend(self.scaling_groups(cluster, &node_group).await?);
            }
        }
        let mut instances = HashSet::new();
        for groups in groups.chunks(GROUPS) {
            self.instances(groups, &mut instances).await?;
        }
        Ok(instances)
    }
}
