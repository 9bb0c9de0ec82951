//! Workload identity federation: another issuer's token is exchanged for one of Google's.

use std::path::PathBuf;

use http::Method;
use http::header::{HeaderName, HeaderValue};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};
use spire_core::remote::{Client, Endpoints};
use tokio::io::AsyncReadExt;
use url::{Host, Url};
use zeroize::Zeroizing;

use super::aws::{Aws, Variables};
use super::{AccessToken, oauth};

/// Longest subject token in bytes that is read.
const MAX_SUBJECT_BYTES: u64 = 64 << 10;

/// An identity that another issuer vouches for.
///
/// # Source
/// Google Cloud, "Workload identity federation": credential configuration files; AIP-4117.
#[derive(Deserialize)]
pub(super) struct ExternalAccount {
    audience: String,
    subject_token_type: String,
    token_url: String,
    pub(super) service_account_impersonation_url: Option<String>,
    service_account_impersonation: Option<ImpersonationOptions>,
    credential_source: Source,
    client_id: Option<String>,
    client_secret: Option<Zeroizing<String>>,
    workforce_pool_user_project: Option<String>,
}

#[derive(Deserialize)]
struct ImpersonationOptions {
    token_lifetime_seconds: Option<i64>,
}

/// Where the other issuer's token is: a file or a URL, or whether AWS is the issuer.
#[derive(Deserialize)]
struct Source {
    file: Option<PathBuf>,
    url: Option<String>,
    #[serde(default)]
    headers: Map<String, Value>,
    #[serde(default)]
    format: Format,
    #[serde(flatten)]
    aws: Aws,
}

/// How that token is written there.
#[derive(Deserialize, Default)]
struct Format {
    #[serde(rename = "type")]
    kind: Option<String>,
    subject_token_field_name: Option<String>,
}

impl ExternalAccount {
    /// Makes sure that the file asks for nothing that is not supported.
    ///
    /// # Errors
    /// A sentence that names the member.
    pub(super) fn check(&self) -> Result<(), String> {
        let Source { file, url, headers, format, aws } = &self.credential_source;
        if aws.is_meant() {
            return aws.check();
        }
        if file.is_some() == url.is_some() {
            return Err("credential_source must have either a file, a url or an environment_id; \
                        executables are not supported"
                .to_owned());
        }
        for (name, value) in headers {
            let name = name.parse::<HeaderName>().is_ok();
            let value = value.as_str().is_some_and(|value| HeaderValue::from_str(value).is_ok());
            if !name || !value {
                return Err("credential_source.headers has one that is no header".to_owned());
            }
        }
        match (format.kind.as_deref(), &format.subject_token_field_name) {
            (None | Some("text"), _) | (Some("json"), Some(_)) => Ok(()),
            (Some("json"), None) => {
                Err("credential_source.format has no subject_token_field_name".to_owned())
            }
            (Some(other), _) => {
                Err(format!("credential_source.format.type {other:?} is neither text nor json"))
            }
        }
    }

    /// How long a token of the identity that is taken on shall be good, in seconds.
    pub(super) fn impersonated_life(&self) -> Option<i64> {
        self.service_account_impersonation.as_ref()?.token_lifetime_seconds
    }

    /// Exchanges the other issuer's token as it is now.
    ///
    /// # Errors
    /// What went wrong, without anything secret.
    ///
    /// # Source
    /// RFC 8693, 2.1.
    pub(super) async fn token(
        &self,
        client: &Client,
        scope: &str,
        now: Timestamp,
    ) -> Result<AccessToken, String> {
        let variable =
            |name: &str| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
        self.token_with(client, scope, &variable, now).await
    }

    /// As [`token`](Self::token), in an environment of these variables.
    pub(super) async fn token_with(
        &self,
        client: &Client,
        scope: &str,
        variable: Variables<'_>,
        now: Timestamp,
    ) -> Result<AccessToken, String> {
        let Source { url, aws, .. } = &self.credential_source;
        let subject = if aws.is_meant() {
            aws.subject_token(url.as_deref(), &self.audience, variable, now).await?
        } else {
            self.credential_source.subject_token(client).await?
        };
        let mut form = vec![
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("audience", &self.audience),
            ("scope", scope),
            ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("subject_token", &subject),
            ("subject_token_type", &self.subject_token_type),
        ];
        let options = self
            .workforce_pool_user_project
            .as_ref()
            .map(|project| serde_json::json!({ "userProject": project }).to_string());
        if let Some(options) = options.as_deref() {
            form.push(("options", options));
        }
        let authenticated = |request: reqwest::RequestBuilder| match &self.client_id {
            Some(id) => request.basic_auth(id, self.client_secret.as_ref().map(|s| s.as_str())),
            None => request,
        };
        oauth::grant(client, &self.token_url, &form, authenticated, now).await
    }
}

impl Source {
    /// The other issuer's token, which may have changed since it was read last.
    async fn subject_token(&self, client: &Client) -> Result<Zeroizing<String>, String> {
        let text = match (&self.file, &self.url) {
            (Some(path), _) => {
                let unable = |error: std::io::Error| {
                    format!("unable to read the subject token from {}: {error}", path.display())
                };
                let file = tokio::fs::File::open(path).await.map_err(unable)?;
                let mut text = Zeroizing::new(String::new());
                let mut file = file.take(MAX_SUBJECT_BYTES + 1);
                file.read_to_string(&mut text).await.map_err(unable)?;
                if text.len() as u64 > MAX_SUBJECT_BYTES {
                    let why = format!("it has more than {MAX_SUBJECT_BYTES} bytes");
                    return Err(unable(std::io::Error::other(why)));
                }
                text
            }
            (None, Some(url)) => {
                // What this machine alone can reach, no proxy can, nor need it see the token.
                let client = match is_of_this_machine(url) {
                    true => &Client::of_metadata(&Endpoints::default())
                        .map_err(|error| error.to_string())?,
                    false => client,
                };
                let answer = oauth::ask(client, Method::GET, url, |mut request| {
                    for (name, value) in &self.headers {
                        request = request.header(name, value.as_str().unwrap_or_default());
                    }
                    request
                });
                let text = String::from_utf8(answer.await?.body.to_vec());
                Zeroizing::new(text.map_err(|_| "the subject token is no text".to_owned())?)
            }
            (None, None) => return Err("credential_source names no place".to_owned()),
        };
        let token = match (&self.format.kind, &self.format.subject_token_field_name) {
            (Some(kind), Some(name)) if kind == "json" => member(&text, name)?,
            _ => text,
        };
        if token.trim().is_empty() {
            return Err("the subject token is empty".to_owned());
        }
        Ok(token)
    }
}

/// Whether a URL leads to this machine or to its cloud's metadata service.
fn is_of_this_machine(url: &str) -> bool {
    match Url::parse(url).ok().as_ref().and_then(Url::host) {
        Some(Host::Ipv4(address)) => address.is_loopback() || address.is_link_local(),
        Some(Host::Ipv6(address)) => address.is_loopback() || address.is_unicast_link_local(),
        Some(Host::Domain(name)) => name == "metadata.google.internal",
        None => false,
    }
}

/// A member of a JSON object that is a text.
fn member(text: &str, name: &str) -> Result<Zeroizing<String>, String> {
    let missing = || format!("the subject token's document has no text {name:?}");
    let mut object: Map<String, Value> = serde_json::from_str(text).map_err(|_| missing())?;
    match object.remove(name) {
        Some(Value::String(token)) => Ok(Zeroizing::new(token)),
        _ => Err(missing()),
    }
}
