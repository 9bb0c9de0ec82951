//! Client of AWS's control plane, as far as the server asks it about nodes: one set of clients for
//! each account and region, whose questions are put together, remembered for a while and bounded in
//! time.

mod cluster;
mod error;
mod instances;
mod organization;
mod profiles;

use std::sync::Arc;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_ec2::config::{Credentials, SharedCredentialsProvider};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use moka::future::Cache;
use spire_core::clock::Clock;
use spire_core::remote::Endpoints;
use zeroize::Zeroizing;

use crate::NAME;
use crate::members::Members;
use crate::regions::partition;

pub(crate) use error::CloudError;
pub(crate) use instances::{Found, Instance};
#[cfg(test)]
pub(crate) use instances::{Interface, Volume};
pub(crate) use organization::{AccountFile, Organization, read_accounts};
pub(crate) use profiles::{ProfileError, profile_name};

/// Services whose URL an operator may set.
pub(crate) const SERVICES: [&str; 6] = ["ec2", "iam", "sts", "organizations", "eks", "autoscaling"];

/// How long a call may take, all its tries together.
const CALL: Duration = Duration::from_secs(10);
/// How long one try may take, and to connect for it.
const TRY: Duration = Duration::from_secs(4);
const CONNECT: Duration = Duration::from_secs(2);
/// How often a call is tried. The SDK waits longer each time, with jitter, where it is throttled.
const TRIES: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// Most accounts and regions that are remembered. Whoever can sign up for accounts can make more.
const MAX_ACCOUNTS: u64 = 1000;

/// How AWS is asked.
#[derive(Default)]
pub(crate) struct CloudConfig {
    /// Key id and secret, where they stand in the plugin's section; else the SDK finds credentials.
    pub(crate) static_key: Option<(String, Zeroizing<String>)>,
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
    config: CloudConfig,
    http: aws_smithy_runtime_api::client::http::SharedHttpClient,
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
        let http = http_client(&config.endpoints)?;
        let accounts = Cache::new(MAX_ACCOUNTS);
        Ok(Self { shared: Arc::new(Shared { config, http, clock, accounts }) })
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
        aws_sdk_organizations::Client::new(&self.shared.at(config, "organizations"))
    }
}

impl Shared {
    async fn connect(&self, account: &str, region: &str) -> Arc<Account> {
        let config = match &self.config.assume_role {
            Some(role) => self.assuming(account, role, region).await,
            None => self.own(region).await,
        };
        let at = |service| self.at(config.clone(), service);
        let clusters = &self.config.eks_clusters;
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

    /// The server's own credentials.
    async fn own(&self, region: &str) -> SdkConfig {
        let retries = RetryConfig::standard()
            .with_max_attempts(TRIES)
            .with_initial_backoff(FIRST_WAIT)
            .with_max_backoff(LONGEST_WAIT);
        let limits = TimeoutConfig::builder()
            .connect_timeout(CONNECT)
            .operation_attempt_timeout(TRY)
            .operation_timeout(CALL)
            .build();
        let loader = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(region.to_owned()))
            .http_client(self.http.clone())
            .retry_config(retries)
            .timeout_config(limits);
        let loader = match &self.config.static_key {
            Some((id, secret)) => {
                loader.credentials_provider(Credentials::new(id, secret.as_str(), None, None, NAME))
            }
            None => loader,
        };
        loader.load().await
    }

    /// The credentials of `role` in `account`.
    async fn assuming(&self, account: &str, role: &str, region: &str) -> SdkConfig {
        let own = self.own(region).await;
        let role = format!("arn:{}:iam::{account}:role/{role}", partition(region));
        let provider = AssumeRoleProvider::builder(role)
            .configure(&self.at(own.clone(), "sts"))
            .region(Region::new(region.to_owned()))
            .build()
            .await;
        own.into_builder().credentials_provider(SharedCredentialsProvider::new(provider)).build()
    }

    /// `config` for a service, at the URL that an operator has set for it.
    fn at(&self, config: SdkConfig, service: &str) -> SdkConfig {
        match self.config.endpoints.get(service) {
            Some(endpoint) => config.into_builder().endpoint_url(endpoint.as_str()).build(),
            None => config,
        }
    }
}

/// A client that uses the proxies of the environment and trusts the system's CAs and those of the
/// operator.
fn http_client(
    endpoints: &Endpoints,
) -> Result<aws_smithy_runtime_api::client::http::SharedHttpClient, String> {
    let mut trusted = TrustStore::default();
    for authority in endpoints.authorities() {
        trusted.add_pem_certificate(spire_core::bundle::certificate_pem(authority));
    }
    let context = TlsContext::builder().with_trust_store(trusted).build();
    let context = context.map_err(|error| format!("no HTTP client: {error}"))?;
    Ok(Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder();
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
        connector.set_proxy_config(Some(ProxyConfig::from_env()));
        connector
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(context.clone())
            .build()
    }))
}
