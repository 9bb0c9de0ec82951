//! `awssecret`: an upstream CA whose certificate and key are secrets of AWS Secrets Manager.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_secretsmanager::Client;
use spire_aws_client::{Aws, StaticKey, failure};
use spire_core::catalog::{Host, Plugin, PluginError};
use spire_core::config::{FromSection, Reader, Section};
use spire_core::remote::Endpoints;
use spire_core::upstream::UpstreamAuthority;
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use crate::arn;
use crate::held::{Held, Place, Texts};
use crate::pem::Text;

/// Registers the plugin.
pub const PLUGIN: Plugin<dyn UpstreamAuthority> =
    Plugin { name: NAME, build: |section, host| Ok(Arc::new(build(section, host)?)) };

const NAME: &str = "awssecret";

/// Largest secret that is used, in bytes.
///
/// # Source
/// AWS Secrets Manager, quotas: a secret value has at most 65,536 bytes.
const MAX_SECRET_BYTES: usize = 64 << 10;

/// The section as checked.
struct Config {
    certificate: Secret,
    key: Secret,
    bundle: Option<Secret>,
    static_key: Option<StaticKey>,
    assume_role: Option<String>,
    endpoints: Endpoints,
}

/// Which secret, and where.
#[derive(Debug)]
struct Secret {
    /// Its name or its ARN.
    id: String,
    /// `None` where the environment says which region is meant.
    region: Option<String>,
}

impl FromSection for Config {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        reader.ignored("ttl", "the server's ca_ttl decides");
        let region = reader.string("region");
        let secret = |id: String| Secret { region: arn::region(&id).or(region.clone()), id };
        let certificate = reader.required("cert_file_arn", "cert_file_arn is required");
        let key = reader.required("key_file_arn", "key_file_arn is required");
        let bundle = reader.string("bundle_file_arn");
        let static_key = StaticKey::read(reader, Some("secret_token"));
        let assume_role = reader.string("assume_role_arn");
        let endpoints = Endpoints::read(reader, &["secretsmanager", "sts"]);
        Some(Self {
            certificate: secret(certificate?),
            key: secret(key?),
            bundle: bundle.map(secret),
            static_key,
            assume_role,
            endpoints: endpoints?,
        })
    }
}

fn build(section: &Section, host: &Host) -> Result<Held<Secrets>, PluginError> {
    let config: Config = section.decode()?;
    let Config { certificate, key, bundle, static_key, assume_role, endpoints } = config;
    let aws = Aws::new(NAME, static_key, endpoints).map_err(PluginError::Unusable)?;
    let secrets = Secrets { certificate, key, bundle, assume_role, aws, shared: OnceCell::new() };
    Ok(Held::new(secrets, host, None))
}

/// The secrets, and how they are asked for.
struct Secrets {
    certificate: Secret,
    key: Secret,
    bundle: Option<Secret>,
    assume_role: Option<String>,
    aws: Aws,
    /// Made at the first question, since that may need the net; a role's credentials are kept in
    /// it and renewed by the SDK.
    shared: OnceCell<SdkConfig>,
}

#[async_trait]
impl Place for Secrets {
    const PLUGIN: &'static str = NAME;
    /// At AWS's price of 2026 three secrets cost about 0.65 dollars a month so.
    const LOOK: Duration = Duration::from_secs(60);

    async fn read(&self) -> Result<Texts, String> {
        let certificate = self.fetch(&self.certificate, "cert").await?;
        let key = self.fetch(&self.key, "key").await?;
        let bundle = match &self.bundle {
            Some(bundle) => Some(self.fetch(bundle, "bundle").await?),
            None => None,
        };
        Ok(Texts { certificate, key, bundle })
    }
}

impl Secrets {
    async fn fetch(&self, secret: &Secret, what: &str) -> Result<Text, String> {
        let unable = |why: String| format!("unable to load upstream CA {what}: {why}");
        let region = secret.region.as_deref();
        let config = self.shared.get_or_init(|| self.connect(region)).await.clone();
        let mut config = self.aws.at(config, "secretsmanager").into_builder();
        if let Some(region) = region {
            config.set_region(aws_config::Region::new(region.to_owned()));
        }
        let client = Client::new(&config.build());
        let answer = client.get_secret_value().secret_id(&secret.id).send().await;
        let answer = answer.map_err(|err| unable(failure("GetSecretValue", &err)))?;
        let Some(text) = answer.secret_string else {
            return Err(unable(format!("secret {} holds no text", secret.id)));
        };
        let pem = Zeroizing::new(text.into_bytes());
        if pem.len() > MAX_SECRET_BYTES {
            let why = format!("secret {} is larger than {MAX_SECRET_BYTES} bytes", secret.id);
            return Err(unable(why));
        }
        Ok(Text { name: format!("secret {}", secret.id), pem })
    }

    async fn connect(&self, region: Option<&str>) -> SdkConfig {
        match &self.assume_role {
            Some(role) => self.aws.assuming(role, region).await,
            None => self.aws.own(region).await,
        }
    }
}
