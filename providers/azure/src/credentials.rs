//! Who the server is to Azure: an application with a secret or with tokens that somebody else
//! issues, or a managed identity.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use azure_core::credentials::{Secret, TokenCredential};
use azure_core::error::ErrorKind;
use azure_core::http::{ClientMethodOptions, ClientOptions};
use azure_identity::{
    ClientAssertion, ClientAssertionCredential, ClientAssertionCredentialOptions,
    ClientSecretCredential, ClientSecretCredentialOptions, ManagedIdentityCredential,
    ManagedIdentityCredentialOptions, UserAssignedId,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use moka::future::Cache;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::cloud::Services;
use crate::transport;

/// How long a token is handed out without a look at its expiry. The SDK renews it five minutes
/// before.
const HELD: Duration = Duration::from_secs(60);

/// Largest file with a token in bytes that is read.
const MAX_TOKEN_BYTES: u64 = 64 << 10;

/// How tokens that stand for an application may be signed.
const ASSERTION_ALGORITHMS: [&str; 9] =
    ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512"];

/// What a section says of the server's identity in a tenant.
#[derive(Clone)]
pub(crate) enum Identity {
    /// An application with a secret.
    Secret { app_id: String, secret: Zeroizing<String> },
    /// An application that another issuer vouches for, by a token in a file.
    TokenFile { app_id: String, path: PathBuf },
    /// What the environment gives: an application with a secret or a token file, or else a managed
    /// identity.
    Default,
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret { app_id, .. } => write!(formatter, "Secret of {app_id}"),
            Self::TokenFile { app_id, .. } => write!(formatter, "TokenFile of {app_id}"),
            Self::Default => formatter.write_str("Default"),
        }
    }
}

impl Identity {
    /// Resolves [`Default`](Self::Default) as Azure's clients do: by `AZURE_CLIENT_ID` with
    /// `AZURE_CLIENT_SECRET` or `AZURE_FEDERATED_TOKEN_FILE`; `None` is a managed identity.
    ///
    /// # Errors
    /// Where the environment gives a certificate alone, which is not supported.
    fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, String> {
        let value = |name: &str| variable(name).filter(|value| !value.is_empty());
        let Some(app_id) = value("AZURE_CLIENT_ID") else { return Ok(None) };
        if let Some(secret) = value("AZURE_CLIENT_SECRET") {
            return Ok(Some(Self::Secret { app_id, secret: Zeroizing::new(secret) }));
        }
        if let Some(path) = value("AZURE_FEDERATED_TOKEN_FILE") {
            return Ok(Some(Self::TokenFile { app_id, path: path.into() }));
        }
        match value("AZURE_CLIENT_CERTIFICATE_PATH") {
            Some(_) => Err("AZURE_CLIENT_CERTIFICATE_PATH is set, but an application proves \
                            itself by AZURE_CLIENT_SECRET or AZURE_FEDERATED_TOKEN_FILE only; set \
                            one of them, or unset it to use a managed identity"
                .to_owned()),
            None => Ok(None),
        }
    }
}

/// Tokens of the server in one tenant, each fetched once for all who wait for it.
pub(crate) struct Credential {
    source: Arc<dyn TokenCredential>,
    scope: String,
    held: Cache<(), Arc<Zeroizing<String>>>,
}

impl Credential {
    /// The server as `identity` in `tenant_id`.
    ///
    /// # Errors
    /// What is wrong with the identity.
    pub(crate) fn new(
        identity: &Identity,
        tenant_id: &str,
        services: &Services,
    ) -> Result<Self, String> {
        let options = transport::options(services).map_err(|error| error.to_string())?;
        let source = match identity {
            Identity::Default => match Identity::of_environment(|name| std::env::var(name).ok())? {
                Some(identity) => application(&identity, tenant_id, options),
                None => managed_identity(options),
            },
            identity => application(identity, tenant_id, options),
        };
        let source = source.map_err(|error| error.to_string())?;
        let held = Cache::builder().max_capacity(1).time_to_live(HELD).build();
        Ok(Self { source, scope: services.cloud.resource_manager_scope(), held })
    }

    /// A token for Azure Resource Manager.
    ///
    /// # Errors
    /// Why there is none, for all who wait.
    pub(crate) async fn token(&self) -> Result<Arc<Zeroizing<String>>, Arc<azure_core::Error>> {
        self.held
            .try_get_with((), async {
                let token = self.source.get_token(&[&self.scope], None).await?;
                Ok(Arc::new(Zeroizing::new(token.token.secret().to_owned())))
            })
            .await
    }
}

fn application(
    identity: &Identity,
    tenant_id: &str,
    client_options: ClientOptions,
) -> azure_core::Result<Arc<dyn TokenCredential>> {
    match identity {
        Identity::Secret { app_id, secret } => {
            let options = Some(ClientSecretCredentialOptions { client_options });
            let secret = Secret::new(secret.to_string());
            Ok(ClientSecretCredential::new(tenant_id, app_id.clone(), secret, options)?)
        }
        Identity::TokenFile { app_id, path } => {
            let options = Some(ClientAssertionCredentialOptions { client_options });
            let (tenant, file) = (tenant_id.to_owned(), TokenFile(path.clone()));
            Ok(ClientAssertionCredential::new(tenant, app_id.clone(), file, options)?)
        }
        Identity::Default => managed_identity(client_options),
    }
}

fn managed_identity(client_options: ClientOptions) -> azure_core::Result<Arc<dyn TokenCredential>> {
    let client_id = std::env::var("AZURE_CLIENT_ID").ok().filter(|id| !id.is_empty());
    let user_assigned_id = client_id.map(UserAssignedId::ClientId);
    let options = ManagedIdentityCredentialOptions { user_assigned_id, client_options };
    Ok(ManagedIdentityCredential::new(Some(options))?)
}

/// A file with a token, read anew whenever a token of Azure is asked for: others rotate it.
#[derive(Debug)]
struct TokenFile(PathBuf);

#[async_trait]
impl ClientAssertion for TokenFile {
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        let failed = |message: String| {
            let message = format!("unable to use token file {}: {message}", self.0.display());
            azure_core::Error::with_message(ErrorKind::Credential, message)
        };
        let length = tokio::fs::metadata(&self.0).await.map_err(|error| failed(error.to_string()));
        if length?.len() > MAX_TOKEN_BYTES {
            return Err(failed(format!("longer than {MAX_TOKEN_BYTES} bytes")));
        }
        let text = tokio::fs::read_to_string(&self.0).await;
        let text = Zeroizing::new(text.map_err(|error| failed(error.to_string()))?);
        let token = text.trim();
        if !is_assertion(token) {
            return Err(failed("it holds no signed JWT".to_owned()));
        }
        Ok(token.to_owned())
    }
}

/// Whether `token` has the form of a JWS that is signed with a private key.
fn is_assertion(token: &str) -> bool {
    #[derive(Deserialize)]
    struct Header {
        alg: String,
    }
    let [header, claims, signature] = token.split('.').collect::<Vec<_>>()[..] else {
        return false;
    };
    let algorithm = URL_SAFE_NO_PAD
        .decode(header)
        .ok()
        .and_then(|header| serde_json::from_slice::<Header>(&header).ok());
    let known = algorithm.is_some_and(|header| ASSERTION_ALGORITHMS.contains(&&*header.alg));
    known && [claims, signature].iter().all(|part| URL_SAFE_NO_PAD.decode(part).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_signed_tokens_stand_for_an_application() {
        let token = |header: &str| format!("{}.e30.c2ln", URL_SAFE_NO_PAD.encode(header));
        assert!(is_assertion(&token(r#"{"alg":"RS256","kid":"a"}"#)));
        for other in [
            "",
            "garbage",
            "a.b.c",
            "a.b.c.d",
            &token(r#"{"alg":"none"}"#),
            &token(r#"{"alg":"HS256"}"#),
            &format!("{}=", token(r#"{"alg":"RS256"}"#)),
        ] {
            assert!(!is_assertion(other), "{other}");
        }
    }

    #[test]
    fn the_environment_says_who_the_server_is() {
        const ID: &str = "AZURE_CLIENT_ID";
        const SECRET: &str = "AZURE_CLIENT_SECRET";
        const FILE: &str = "AZURE_FEDERATED_TOKEN_FILE";
        const CERTIFICATE: &str = "AZURE_CLIENT_CERTIFICATE_PATH";
        let identity = |set: &[&str]| {
            let found =
                Identity::of_environment(|name| set.contains(&name).then(|| format!("of {name}")));
            found.map(|identity| match identity {
                Some(Identity::Secret { app_id, secret }) => format!("{app_id}, {}", *secret),
                Some(Identity::TokenFile { app_id, path }) => format!("{app_id}, {path:?}"),
                Some(Identity::Default) | None => "managed".to_owned(),
            })
        };
        for (set, expected) in [
            (&[][..], "managed"),
            (&[ID], "managed"),
            (&[SECRET, FILE, CERTIFICATE], "managed"),
            (&[ID, SECRET, FILE, CERTIFICATE], "of AZURE_CLIENT_ID, of AZURE_CLIENT_SECRET"),
            (&[ID, FILE, CERTIFICATE], "of AZURE_CLIENT_ID, \"of AZURE_FEDERATED_TOKEN_FILE\""),
        ] {
            assert_eq!(identity(set).as_deref(), Ok(expected), "{set:?}");
        }
        let refused = identity(&[ID, CERTIFICATE]).unwrap_err();
        assert!(refused.starts_with("AZURE_CLIENT_CERTIFICATE_PATH is set"), "{refused}");
    }

    #[test]
    fn no_secret_is_shown() {
        let identity =
            Identity::Secret { app_id: "app".into(), secret: Zeroizing::new("hush".into()) };
        assert!(!format!("{identity:?}").contains("hush"));
    }
}
