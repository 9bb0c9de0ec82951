//! How AWS is asked: with whose credentials, over which HTTP client, at which URLs and how
//! patiently. It knows no service: whoever uses it brings the SDK's client of the service it needs.

mod http;
mod own;

use std::error::Error;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_sts::operation::RequestId;
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::display::DisplayErrorContext;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use spire_core::config::Reader;
use spire_core::remote::Endpoints;
use zeroize::Zeroizing;

/// How long a call may take, all its tries together.
const CALL: Duration = Duration::from_secs(10);
/// How long one try may take, and to connect for it.
const TRY: Duration = Duration::from_secs(4);
const CONNECT: Duration = Duration::from_secs(2);
/// How often a call is tried. The SDK waits longer each time, with jitter, where it is throttled.
const TRIES: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Where the environment has the halves of a key.
const ID_VARIABLE: &str = "AWS_ACCESS_KEY_ID";
const SECRET_VARIABLE: &str = "AWS_SECRET_ACCESS_KEY";

/// A key that stands in a plugin's section.
#[derive(Clone)]
pub struct StaticKey {
    id: String,
    secret: Zeroizing<String>,
    session_token: Option<Zeroizing<String>>,
}

impl StaticKey {
    /// Reads `access_key_id` and `secret_access_key`, and the session token where `token` names
    /// its key. Where the file has one half, the environment may have the other. `None` where both
    /// are absent: then the SDK finds credentials in its environment.
    pub fn read(reader: &mut Reader<'_>, token: Option<&'static str>) -> Option<Self> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self::complete(reader, token, variable)
    }

    fn complete(
        reader: &mut Reader<'_>,
        token: Option<&'static str>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Option<Self> {
        let mut id = reader.string("access_key_id");
        let mut secret = reader.secret("secret_access_key");
        let session_token = token.and_then(|token| reader.secret(token));
        match (&id, &secret) {
            (Some(_), None) => secret = variable(SECRET_VARIABLE).map(Zeroizing::new),
            (None, Some(_)) => id = variable(ID_VARIABLE),
            _ => {}
        }
        match (id, secret) {
            (Some(id), Some(secret)) => Some(Self { id, secret, session_token }),
            (None, None) => None,
            (id, _) => {
                let (there, missing) = match id {
                    Some(_) => ("access_key_id", "secret_access_key"),
                    None => ("secret_access_key", "access_key_id"),
                };
                let sentence = format!("configuration has {there} but no {missing}");
                let remedy = "set both, one of them in the environment, or neither to use the \
                              credentials of the environment";
                reader.reject(missing, &sentence, remedy);
                None
            }
        }
    }
}

impl fmt::Debug for StaticKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "StaticKey({})", self.id)
    }
}

/// AWS, as a plugin may ask it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Aws(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    plugin: &'static str,
    static_key: Option<StaticKey>,
    endpoints: Endpoints,
    http: SharedHttpClient,
    /// The server's own credentials, where they do not stand in the section.
    own: OnceLock<SharedCredentialsProvider>,
}

impl Aws {
    /// AWS for the plugin `plugin`, at the URLs of `endpoints` where these name any.
    ///
    /// # Errors
    /// A sentence that says why there is no HTTP client.
    pub fn new(
        plugin: &'static str,
        static_key: Option<StaticKey>,
        endpoints: Endpoints,
    ) -> Result<Self, String> {
        let http = http::client(&endpoints)?;
        let own = OnceLock::new();
        Ok(Self(Arc::new(Inner { plugin, static_key, endpoints, http, own })))
    }

    /// The server's own credentials, for `region`; without one the SDK's environment says which.
    pub async fn own(&self, region: Option<&str>) -> SdkConfig {
        let retries = RetryConfig::standard()
            .with_max_attempts(TRIES)
            .with_initial_backoff(FIRST_WAIT)
            .with_max_backoff(LONGEST_WAIT);
        let limits = TimeoutConfig::builder()
            .connect_timeout(CONNECT)
            .operation_attempt_timeout(TRY)
            .operation_timeout(CALL)
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(self.0.http.clone())
            .retry_config(retries)
            .timeout_config(limits);
        if let Some(region) = region {
            loader = loader.region(Region::new(region.to_owned()));
        }
        if let Some(StaticKey { id, secret, session_token }) = &self.0.static_key {
            let token = session_token.as_ref().map(|token| token.to_string());
            let key = Credentials::new(id, secret.as_str(), token, None, self.0.plugin);
            loader = loader.credentials_provider(key);
        }
        let config = loader.load().await;
        match (&self.0.static_key, config.credentials_provider()) {
            (None, Some(found)) => {
                let kept = || SharedCredentialsProvider::new(own::Kept::new(found));
                let own = self.0.own.get_or_init(kept).clone();
                config.into_builder().credentials_provider(own).build()
            }
            _ => config,
        }
    }

    /// The credentials of the role `role_arn`, which the server's own may assume.
    pub async fn assuming(&self, role_arn: &str, region: Option<&str>) -> SdkConfig {
        let own = self.own(region).await;
        let mut role =
            AssumeRoleProvider::builder(role_arn).configure(&self.at(own.clone(), "sts"));
        if let Some(region) = own.region() {
            role = role.region(region.clone());
        }
        let provider = SharedCredentialsProvider::new(role.build().await);
        own.into_builder().credentials_provider(provider).build()
    }

    /// `config` for a service, at the URL that an operator has set for it.
    pub fn at(&self, config: SdkConfig, service: &str) -> SdkConfig {
        match self.0.endpoints.get(service) {
            Some(endpoint) => config.into_builder().endpoint_url(endpoint.as_str()).build(),
            None => config,
        }
    }
}

/// What STS called the request for a role whose failure `error` comes from.
pub fn request_for_role<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e str> {
    let errors = std::iter::successors(Some(error), |error| (*error).source());
    let mut refusals = errors.filter_map(|error| error.downcast_ref::<AssumeRoleError>());
    refusals.find_map(RequestId::request_id)
}

/// The failure of `call`, in AWS's words where it said something.
pub fn failure<E, R>(call: &str, error: &SdkError<E, R>) -> String
where
    E: ProvideErrorMetadata + Error + 'static,
    R: fmt::Debug + 'static,
{
    match (error.code(), error.message()) {
        (Some(code), Some(message)) => format!("{call} failed: {code}: {message}"),
        (Some(code), None) => format!("{call} failed: {code}"),
        (None, _) => format!("{call} failed: {}", DisplayErrorContext(error)),
    }
}

#[cfg(test)]
mod tests {
    use spire_core::config::Section;

    use super::*;

    #[test]
    fn the_environment_completes_a_key_and_does_not_replace_it() {
        let variable = |name: &str| Some(format!("of {name}"));
        let (id, secret) = ("access_key_id = \"i\"\n", "secret_access_key = \"s\"\n");
        for (text, expected) in [
            (format!("{id}{secret}"), Some(("i", "s"))),
            (id.to_owned(), Some(("i", "of AWS_SECRET_ACCESS_KEY"))),
            (secret.to_owned(), Some(("of AWS_ACCESS_KEY_ID", "s"))),
            (String::new(), None),
        ] {
            let section = Section::parse(&text).unwrap();
            let (key, findings) =
                section.read(|reader| Some(StaticKey::complete(reader, None, variable)));
            let key = key.flatten();
            let key = key.as_ref().map(|key| (key.id.as_str(), key.secret.as_str()));
            assert_eq!(key, expected, "{text}");
            assert!(findings.mistakes.is_empty() && findings.warnings.is_empty(), "{findings:?}");
        }
        let section = Section::parse(id).unwrap();
        let (_, findings) =
            section.read(|reader| Some(StaticKey::complete(reader, None, |_| None)));
        let sentence = "configuration has access_key_id but no secret_access_key";
        assert_eq!(findings.mistakes[0].message, sentence);
    }
}
