//! Files with credentials, as Google hands them out.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gcp_auth::CustomServiceAccount;
use http::Method;
use jiff::Timestamp;
use serde::Deserialize;
use spire_core::remote::Client;
use spire_core::telemetry::log::with_causes;
use zeroize::Zeroizing;

use super::external::ExternalAccount;
use super::{AccessToken, CredentialError, SCOPE, oauth};

/// Largest file in bytes that is read.
const MAX_FILE_BYTES: u64 = 64 << 10;
/// The token endpoint for users, where the file names none.
const USER_TOKENS: &str = "https://oauth2.googleapis.com/token";
/// What a token may be used for with which another identity is taken on.
const IMPERSONATION_SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// How long what a service account says of itself is good, in seconds. Google allows an hour.
const ASSERTED_LIFE: i64 = 600;
/// How long a token of another identity is asked to be good.
const IMPERSONATED_LIFE: i64 = 3600;

/// Credentials from a file.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Kind {
    /// The key of a service account.
    ServiceAccount(ServiceAccount),
    /// A person, as `gcloud auth application-default login` leaves it.
    AuthorizedUser(User),
    /// An identity that another issuer vouches for.
    ExternalAccount(Box<ExternalAccount>),
    /// One of the others, who takes on the identity of a service account.
    ImpersonatedServiceAccount(Impersonation),
}

/// A service account, beside its key. What is missing is told where the key is read.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ServiceAccount {
    client_email: String,
    token_uri: String,
}

#[derive(Deserialize)]
struct User {
    client_id: String,
    client_secret: Zeroizing<String>,
    refresh_token: Zeroizing<String>,
    token_uri: Option<String>,
}

#[derive(Deserialize)]
struct Impersonation {
    service_account_impersonation_url: String,
    #[serde(default)]
    delegates: Vec<String>,
    source_credentials: serde_json::Value,
}

/// A file with credentials that has been read.
pub(crate) struct CredentialFile {
    kind: Kind,
    text: Zeroizing<String>,
}

impl CredentialFile {
    /// Reads the file.
    ///
    /// # Errors
    /// A sentence that names the file and what is wrong, without anything that it holds.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let unable = |why: &dyn std::fmt::Display| {
            format!("unable to read credentials from {}: {why}", path.display())
        };
        let mut text = Zeroizing::new(String::new());
        let file = std::fs::File::open(path).map_err(|error| unable(&error))?;
        std::io::Read::read_to_string(
            &mut std::io::Read::take(file, MAX_FILE_BYTES + 1),
            &mut text,
        )
        .map_err(|error| unable(&error))?;
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(unable(&format!("more than {MAX_FILE_BYTES} bytes")));
        }
        Self::parse(text).map_err(|error| unable(&error))
    }

    /// As [`read`](Self::read), from within a task.
    pub(super) async fn read_async(path: &Path) -> Result<Self, CredentialError> {
        let path = path.to_owned();
        let read = tokio::task::spawn_blocking(move || Self::read(&path)).await;
        read.unwrap_or_else(|error| Err(error.to_string())).map_err(CredentialError)
    }

    fn parse(text: Zeroizing<String>) -> Result<Self, String> {
        // What serde says about a value could show it.
        let kind: Kind = serde_json::from_str(&text).map_err(|error| {
            format!(
                "no credentials of a kind that is supported (service_account, authorized_user, \
                 external_account, impersonated_service_account), line {} column {}",
                error.line(),
                error.column()
            )
        })?;
        if let Kind::ExternalAccount(account) = &kind {
            account.check()?;
        }
        if let Kind::ServiceAccount(_) = &kind {
            CustomServiceAccount::from_json(&text).map_err(|error| with_causes(&error))?;
        }
        if let Kind::ImpersonatedServiceAccount(impersonation) = &kind {
            impersonation.source()?;
        }
        Ok(Self { kind, text })
    }

    /// Fetches a token for the Compute API.
    ///
    /// # Errors
    /// What went wrong, without anything secret.
    pub(super) async fn token(
        &self,
        client: &Client,
        now: Timestamp,
    ) -> Result<AccessToken, String> {
        match &self.kind {
            Kind::ImpersonatedServiceAccount(impersonation) => {
                let own =
                    impersonation.source()?.own_token(client, IMPERSONATION_SCOPE, now).await?;
                let Impersonation { service_account_impersonation_url: url, delegates, .. } =
                    impersonation;
                impersonate(client, url, delegates, &own, IMPERSONATED_LIFE, now).await
            }
            Kind::ExternalAccount(account) => {
                let Some(url) = &account.service_account_impersonation_url else {
                    return account.token(client, SCOPE, now).await;
                };
                let own = account.token(client, IMPERSONATION_SCOPE, now).await?;
                let life = account.impersonated_life().unwrap_or(IMPERSONATED_LIFE);
                impersonate(client, url, &[], &own, life, now).await
            }
            _ => self.own_token(client, SCOPE, now).await,
        }
    }

    /// A token of the identity that the file itself holds.
    async fn own_token(
        &self,
        client: &Client,
        scope: &str,
        now: Timestamp,
    ) -> Result<AccessToken, String> {
        match &self.kind {
            Kind::ServiceAccount(account) => {
                let assertion = account.assertion(&self.text, scope, now)?;
                let form = [
                    ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
                    ("assertion", assertion.as_str()),
                ];
                oauth::grant(client, &account.token_uri, &form, |request| request, now).await
            }
            Kind::AuthorizedUser(user) => user.token(client, now).await,
            Kind::ExternalAccount(account) => account.token(client, scope, now).await,
            Kind::ImpersonatedServiceAccount(_) => {
                Err("source_credentials are themselves impersonated, which is not supported".into())
            }
        }
    }
}

impl Impersonation {
    fn source(&self) -> Result<CredentialFile, String> {
        let text = Zeroizing::new(self.source_credentials.to_string());
        let kind = serde_json::from_str(&text)
            .map_err(|_| "source_credentials are of no kind that is supported".to_owned())?;
        Ok(CredentialFile { kind, text })
    }
}

impl ServiceAccount {
    /// What the account says of itself, signed with the key in `text`, for a token that may be used
    /// for `scope`.
    ///
    /// # Source
    /// RFC 7523, 2.1; Google, "Using OAuth 2.0 for Server to Server Applications".
    fn assertion(
        &self,
        text: &str,
        scope: &str,
        now: Timestamp,
    ) -> Result<Zeroizing<String>, String> {
        let account = CustomServiceAccount::from_json(text).map_err(|error| with_causes(&error))?;
        let now = now.as_second();
        let claims = serde_json::json!({
            "iss": self.client_email,
            "aud": self.token_uri,
            "scope": scope,
            "iat": now,
            "exp": now + ASSERTED_LIFE,
        });
        let [header, claims] = [r#"{"alg":"RS256","typ":"JWT"}"#, &claims.to_string()]
            .map(|part| URL_SAFE_NO_PAD.encode(part));
        let signed = format!("{header}.{claims}");
        let signature =
            account.signer().sign(signed.as_bytes()).map_err(|error| with_causes(&error))?;
        Ok(Zeroizing::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))))
    }
}

impl User {
    async fn token(&self, client: &Client, now: Timestamp) -> Result<AccessToken, String> {
        let form = [
            ("grant_type", "refresh_token"),
            ("client_id", &self.client_id),
            ("client_secret", &self.client_secret),
            ("refresh_token", &self.refresh_token),
        ];
        let url = self.token_uri.as_deref().unwrap_or(USER_TOKENS);
        oauth::grant(client, url, &form, |request| request, now).await
    }
}

/// A token of another identity, which whoever has the token `own` may take on.
///
/// # Source
/// IAM Credentials API, `projects.serviceAccounts.generateAccessToken`.
async fn impersonate(
    client: &Client,
    url: &str,
    delegates: &[String],
    own: &AccessToken,
    life: i64,
    now: Timestamp,
) -> Result<AccessToken, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Generated {
        access_token: Zeroizing<String>,
        expire_time: String,
    }
    let body = serde_json::json!({
        "delegates": delegates, "scope": [SCOPE], "lifetime": format!("{life}s"),
    });
    let body = body.to_string();
    let answer = oauth::ask(client, Method::POST, url, |request| {
        let request = request.bearer_auth(own.secret.as_str());
        request.header("content-type", "application/json").body(body.clone())
    });
    let missing = || "the answer to the impersonation has no access token".to_owned();
    let generated: Generated =
        serde_json::from_slice(&answer.await?.body).map_err(|_| missing())?;
    let expires_at: Timestamp = generated.expire_time.parse().map_err(|_| missing())?;
    let life = expires_at.duration_since(now).as_secs();
    Ok(AccessToken::new(generated.access_token, now, life))
}
