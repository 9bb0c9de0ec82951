//! Client of AWS's control plane, as far as the server asks it about nodes: one set of clients for
//! each account and region, whose questions are put together, remembered for a while and bounded in
//! time.

mod cluster;
mod error;
mod instances;
mod organization;
mod profiles;

use std::sync::Arc;

use aws_config::SdkConfig;
use moka::future::Cache;
use spire_aws_client::{Aws, StaticKey};
use spire_core::clock::Clock;
use spire_core::remote::Endpoints;

use crate::NAME;
use crate::members::Members;
use crate::regions::partition;

pub(crate) use error::CloudError;
pub(crate) use instances::{Found, Instance};
#[cfg(test)]
pub(crate) use instances::{Interface, Volume};
pub(crate) use organization::{AccountFile, Organization, read_accounts};
pub(crate) use profiles::profile_name;

/// Services whose URL an operator may set.
pub(crate) const SERVICES: [&str; 6] = ["ec2", "iam", "sts", "organizations", "eks", "autoscaling"];

/// Most accounts and regions that are remembered. Whoever can sign up for accounts can make more.
const MAX_ACCOUNTS: u64 = 1000;

/// How AWS is asked.
#[derive(Default)]
pub(crate) struct CloudConfig {
    /// The key in the plugin's section; without one the SDK finds credentials.
    pub(crate) static_key: Option<StaticKey>,
    /// The name of the role that is assumed in the account of a node.
    pub(crate) assume_role: Option<String>,
    /// Clusters of EKS of which a node must be one.
    pub(crate) eks_clusters: Vec<String>,
    pub(crate) endpoints: Endpoints,
}

/// AWS, as this server may ask it.
#[derive(Clone)]
pub(crate) struct Cloud {
    shared: Arc<Shared>,
}

struct Shared {
    aws: Aws,
    assume_role: Option<String>,
    eks_clusters: Vec<String>,
    clock: Clock,
    accounts: Cache<(String, String), Arc<Account>>,
}

/// The clients of one account and region.
pub(crate) struct Account {
    pub(crate) instances: instances::Instances,
    pub(crate) profiles: profiles::Profiles,
    /// The instances of the clusters; `None` where none are asked for.
    pub(crate) clusters: Option<Members>,
}

impl Cloud {
    /// # Errors
    /// A sentence that says why there is no HTTP client.
    pub(crate) fn new(config: CloudConfig, clock: Clock) -> Result<Self, String> {
        let CloudConfig { static_key, assume_role, eks_clusters, endpoints } = config;
        let aws = Aws::new(NAME, static_key, endpoints)?;
        let accounts = Cache::new(MAX_ACCOUNTS);
        let shared = Shared { aws, assume_role, eks_clusters, clock, accounts };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The clients for instances of `account` in `region`; both are taken from a proven document.
    pub(crate) async fn account(&self, account: &str, region: &str) -> Arc<Account> {
        let key = (account.to_owned(), region.to_owned());
        self.shared.accounts.get_with(key, self.shared.connect(account, region)).await
    }

    /// A client that lists the accounts of the organization that `account` manages, as `role`.
    async fn organizations(
        &self,
        account: &str,
        role: &str,
        region: &str,
    ) -> aws_sdk_organizations::Client {
        let config = self.shared.assuming(account, role, region).await;
        aws_sdk_organizations::Client::new(&self.shared.aws.at(config, "organizations"))
    }
}

impl Shared {
    async fn connect(&self, account: &str, region: &str) -> Arc<Account> {
        let config = match &self.assume_role {
            Some(role) => self.assuming(account, role, region).await,
            None => self.aws.own(Some(region)).await,
        };
        let at = |service| self.aws.at(config.clone(), service);
        let clusters = &self.eks_clusters;
        let clusters = (!clusters.is_empty()).then(|| {
            let eks = aws_sdk_eks::Client::new(&at("eks"));
            let groups = aws_sdk_autoscaling::Client::new(&at("autoscaling"));
            let list = cluster::ClusterNodes::new(eks, groups, clusters.clone());
            Members::new(Arc::new(list), cluster::GOOD_FOR, self.clock.clone())
        });
        Arc::new(Account {
            instances: instances::Instances::new(aws_sdk_ec2::Client::new(&at("ec2"))),
            profiles: profiles::Profiles::new(aws_sdk_iam::Client::new(&at("iam"))),
            clusters,
        })
    }

    /// The credentials of `role` in `account`.
    async fn assuming(&self, account: &str, role: &str, region: &str) -> SdkConfig {
        let role = format!("arn:{}:iam::{account}:role/{role}", partition(region));
        self.aws.assuming(&role, Some(region)).await
    }
}
