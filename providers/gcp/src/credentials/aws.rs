//! What AWS says of a machine or of a key, as the subject token of a federated identity: a signed
//! request for `GetCallerIdentity`, which Google sends to AWS to see who has signed it.

use std::time::UNIX_EPOCH;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use http::Method;
use jiff::Timestamp;
use serde::Deserialize;
use spire_core::remote::{Client, Endpoints};
use url::Url;
use url::form_urlencoded::byte_serialize;
use zeroize::Zeroizing;

use super::oauth;

/// The only way of signing that there is.
const FIRST: &str = "aws1";
/// Where the request names for whom it was signed, so that nobody else can use it.
const TARGET: &str = "x-goog-cloud-target-resource";
/// How long a session of the metadata service lasts, in seconds.
const SESSION_LIFE: &str = "300";
const SESSION: &str = "x-aws-ec2-metadata-token";

/// An environment variable's value.
pub(super) type Variables<'v> = &'v (dyn Fn(&str) -> Option<String> + Sync);

/// The members of a `credential_source` that make it one of AWS.
///
/// # Source
/// AIP-4117, "Determining the subject token in AWS".
#[derive(Deserialize)]
pub(super) struct Aws {
    environment_id: Option<String>,
    region_url: Option<String>,
    regional_cred_verification_url: Option<String>,
    imdsv2_session_token_url: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Keys {
    access_key_id: String,
    secret_access_key: Zeroizing<String>,
    token: Option<Zeroizing<String>>,
}

impl Aws {
    /// Whether the file means these members to count.
    pub(super) fn is_meant(&self) -> bool {
        self.environment_id.is_some()
    }

    /// Makes sure that the file asks for nothing that is not supported.
    ///
    /// # Errors
    /// A sentence that names the member.
    pub(super) fn check(&self) -> Result<(), String> {
        match self.environment_id.as_deref() {
            None | Some(FIRST) => {}
            Some(other) => {
                return Err(format!(
                    "credential_source.environment_id {other:?} is not supported, {FIRST:?} is"
                ));
            }
        }
        let url = self.verification_url()?.replace("{region}", "us-east-1");
        match Url::parse(&url) {
            Ok(url) if url.scheme() == "https" && url.has_host() => Ok(()),
            _ => Err("credential_source.regional_cred_verification_url is no https URL".to_owned()),
        }
    }

    fn verification_url(&self) -> Result<&str, String> {
        self.regional_cred_verification_url
            .as_deref()
            .ok_or_else(|| "credential_source has no regional_cred_verification_url".to_owned())
    }

    /// The signed request, as `audience` takes it. Keys and region are those of the environment,
    /// else those of the metadata service, whose roles are listed at `roles_url`.
    ///
    /// # Errors
    /// What is missing, without anything secret.
    pub(super) async fn subject_token(
        &self,
        roles_url: Option<&str>,
        audience: &str,
        variable: Variables<'_>,
        now: Timestamp,
    ) -> Result<Zeroizing<String>, String> {
        // Not by a proxy: what the service hands out are keys, in the clear.
        let client = Client::of_metadata(&Endpoints::default());
        let client = client.map_err(|error| error.to_string())?;
        let metadata = Metadata { client, session_url: self.imdsv2_session_token_url.as_deref() };
        let region = match variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION")) {
            Some(region) => region,
            None => metadata.region(self.region_url.as_deref()).await?,
        };
        let keys = match (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY")) {
            (Some(access_key_id), Some(secret)) => Keys {
                access_key_id,
                secret_access_key: secret.into(),
                token: variable("AWS_SESSION_TOKEN").map(Zeroizing::new),
            },
            _ => metadata.keys(roles_url).await?,
        };
        let url = self.verification_url()?.replace("{region}", &region);
        signed(&url, &region, audience, keys, now)
    }
}

/// The request in JSON, escaped for the form that it is sent in.
fn signed(
    url: &str,
    region: &str,
    audience: &str,
    keys: Keys,
    now: Timestamp,
) -> Result<Zeroizing<String>, String> {
    let unable = |error: &dyn std::fmt::Display| format!("unable to sign for AWS: {error}");
    let parsed = Url::parse(url).map_err(|error| unable(&error))?;
    let host = parsed.host_str().ok_or_else(|| unable(&"the URL has no host"))?;
    let token = keys.token.as_ref().map(|token| token.to_string());
    let identity = Credentials::new(
        keys.access_key_id,
        keys.secret_access_key.as_str(),
        token,
        None,
        "external_account",
    )
    .into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("sts")
        .time(UNIX_EPOCH + now.duration_since(Timestamp::UNIX_EPOCH).unsigned_abs())
        .settings(SigningSettings::default())
        .build()
        .map_err(|error| unable(&error))?
        .into();
    let own = [("host", host), (TARGET, audience)];
    let request =
        SignableRequest::new(Method::POST.as_str(), url, own.into_iter(), SignableBody::empty());
    let (instructions, _) = sign(request.map_err(|error| unable(&error))?, &parameters)
        .map_err(|error| unable(&error))?
        .into_parts();
    let header = |(key, value): (&str, &str)| serde_json::json!({ "key": key, "value": value });
    let headers: Vec<_> = own.into_iter().chain(instructions.headers()).map(header).collect();
    let request = serde_json::json!({ "url": url, "method": "POST", "headers": headers });
    let text = Zeroizing::new(request.to_string());
    Ok(Zeroizing::new(byte_serialize(text.as_bytes()).collect()))
}

/// The metadata service of the machine that the server runs on.
struct Metadata<'m> {
    client: Client,
    session_url: Option<&'m str>,
}

impl Metadata<'_> {
    async fn region(&self, url: Option<&str>) -> Result<String, String> {
        let url = url.ok_or("neither AWS_REGION is set nor has credential_source a region_url")?;
        let zone = self.get(url).await?;
        let region = zone.trim().trim_end_matches(|last: char| last.is_ascii_lowercase());
        match region.is_empty() {
            true => Err(format!("{url} names no availability zone")),
            false => Ok(region.to_owned()),
        }
    }

    async fn keys(&self, url: Option<&str>) -> Result<Keys, String> {
        let url = url.ok_or(
            "neither AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are set nor has \
             credential_source a url",
        )?;
        let roles = self.get(url).await?;
        let role = roles.lines().next().map(str::trim).filter(|role| !role.is_empty());
        let role = role.ok_or_else(|| format!("{url}: the instance has no role"))?;
        let keys = self.get(&format!("{}/{role}", url.trim_end_matches('/'))).await?;
        // What serde says about a value could show it.
        serde_json::from_str(&keys).map_err(|_| format!("{url}: the role {role} has no keys"))
    }

    async fn get(&self, url: &str) -> Result<Zeroizing<String>, String> {
        let session = match self.session_url {
            Some(url) => {
                let life = "x-aws-ec2-metadata-token-ttl-seconds";
                Some(self.ask(Method::PUT, url, Some((life, SESSION_LIFE))).await?)
            }
            None => None,
        };
        let session = session.as_ref().map(|session| (SESSION, session.trim()));
        self.ask(Method::GET, url, session).await
    }

    async fn ask(
        &self,
        method: Method,
        url: &str,
        header: Option<(&str, &str)>,
    ) -> Result<Zeroizing<String>, String> {
        let answer = oauth::ask(&self.client, method, url, |request| match header {
            Some((name, value)) => request.header(name, value),
            None => request,
        });
        let text = String::from_utf8(answer.await?.body.to_vec());
        text.map(Zeroizing::new).map_err(|_| format!("{url} answers with no text"))
    }
}

#[cfg(test)]
mod tests {
    use spire_fakes::aws::{Imds, Instance, Mode};
    use spire_fakes::gcp::{Google, SubjectSource};

    use super::super::external::ExternalAccount;
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    struct World {
        google: Google,
        imds: Imds,
        client: Client,
    }

    impl World {
        async fn new() -> Self {
            let mut instance = Instance::new("123456789012", "us-east-1", "i-1");
            instance.profile = Some("arn:aws:iam::1:instance-profile/spire-server".to_owned());
            Self {
                google: Google::start().await,
                imds: Imds::of(Mode::Version2, &instance).await,
                client: Client::of_metadata(&Endpoints::default()).unwrap(),
            }
        }

        /// What a token of Google's costs with these variables set.
        async fn token(&self, set: &[(&str, &str)]) -> Result<(), String> {
            let file =
                self.google.tokens.external_file(SubjectSource::Aws(&self.imds.url()), false);
            let account: ExternalAccount = serde_json::from_str(&file).unwrap();
            account.check().unwrap();
            let variable = |name: &str| {
                set.iter().find(|(set, _)| *set == name).map(|(_, value)| value.to_string())
            };
            let scope = "https://www.googleapis.com/auth/compute.readonly";
            account.token_with(&self.client, scope, &variable, NOW).await.map(drop)
        }
    }

    #[tokio::test]
    async fn the_role_of_an_instance_and_keys_of_the_environment_sign() {
        let world = World::new().await;
        world.token(&[]).await.unwrap();
        let region = [("AWS_DEFAULT_REGION", "eu-west-1")];
        world.token(&region).await.unwrap();
        let keys = [
            ("AWS_REGION", "ap-south-1"),
            ("AWS_DEFAULT_REGION", "eu-west-1"),
            ("AWS_ACCESS_KEY_ID", "AKIA1"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
        ];
        let asked = world.imds.server().count();
        world.token(&keys).await.unwrap();
        world.token(&[&keys[..], &[("AWS_SESSION_TOKEN", "session")]].concat()).await.unwrap();
        assert_eq!(world.imds.server().count(), asked, "the metadata service is not asked");
        let wrong = [keys[0], keys[2], ("AWS_SECRET_ACCESS_KEY", "another")];
        let refused = world.token(&wrong).await.unwrap_err();
        assert!(refused.contains("invalid_grant"), "{refused}");
    }

    #[tokio::test]
    async fn what_is_missing_is_named() {
        let mut world = World::new().await;
        world.imds =
            Imds::of(Mode::Version2, &Instance::new("123456789012", "us-east-1", "i-2")).await;
        let refused = world.token(&[]).await.unwrap_err();
        assert!(refused.contains("404"), "{refused}");
        let aws = |text: &str| serde_json::from_str::<Aws>(text).unwrap();
        let url = r#""regional_cred_verification_url": "https://sts.{region}.amazonaws.com""#;
        for (text, part) in [
            (r#"{"environment_id": "aws2"}"#.to_owned(), r#"environment_id "aws2""#),
            (r#"{"environment_id": "aws1"}"#.to_owned(), "no regional_cred_verification_url"),
            (
                r#"{"environment_id": "aws1", "regional_cred_verification_url": "http://x"}"#
                    .to_owned(),
                "no https URL",
            ),
        ] {
            let refused = aws(&text).check().unwrap_err();
            assert!(refused.contains(part), "{refused}");
        }
        let source = aws(&format!(r#"{{"environment_id": "aws1", {url}}}"#));
        source.check().unwrap();
        let token = async |set: &'static [(&str, &str)]| {
            let variable = |name: &str| {
                set.iter().find(|(set, _)| *set == name).map(|(_, value)| value.to_string())
            };
            source.subject_token(None, "a", &variable, NOW).await.unwrap_err()
        };
        assert!(token(&[]).await.contains("region_url"));
        assert!(token(&[("AWS_REGION", "r")]).await.contains("AWS_ACCESS_KEY_ID"));
    }
}
