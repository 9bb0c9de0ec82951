//! The endpoints that give access tokens: for a service account's key, for a user, for the token of
//! another issuer, and for another identity.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use url::form_urlencoded;

use super::{SigningKey, aws_subject};
use crate::http::{HttpServer, Request, Response, json as json_answer};

const SERVICE_ACCOUNT: &str = "spire-server@big-kahuna-123456.iam.gserviceaccount.com";
/// What another issuer's token is in this cloud.
const SUBJECT: &str = "subject-token";
const POOL: &str =
    "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/a/providers/b";

/// Access tokens that are good. Cheap to clone.
#[derive(Clone)]
pub struct Issued {
    prefix: &'static str,
    tokens: Arc<Mutex<HashSet<String>>>,
}

impl fmt::Debug for Issued {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Issued({})", self.lock().len())
    }
}

impl Issued {
    fn new(prefix: &'static str) -> Self {
        Self { prefix, tokens: Arc::default() }
    }

    pub(super) fn issue(&self) -> String {
        let mut issued = self.lock();
        let token = format!("ya29.{}-{}", self.prefix, issued.len() + 1);
        issued.insert(token.clone());
        token
    }

    pub(super) fn knows(&self, token: &str) -> bool {
        self.lock().contains(token)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a file with credentials finds the other issuer's token.
#[derive(Debug, Clone, Copy)]
pub enum SubjectSource<'s> {
    /// In a file, as it is.
    File(&'s Path),
    /// At this cloud's `/subject`, in JSON, for requests with the right header.
    Url,
    /// It is made of what AWS' metadata service at this URL says.
    Aws(&'s str),
}

/// The token endpoints.
#[derive(Debug, Clone)]
pub struct Tokens {
    server: HttpServer,
    issued: Issued,
    key: SigningKey,
}

impl Tokens {
    /// Starts them.
    pub async fn start() -> Self {
        let (issued, key) = (Issued::new("fake"), SigningKey::generate("service-account-1"));
        // A token for impersonation is no token for the Compute API.
        let federated = Issued::new("federated");
        let (given, own) = (issued.clone(), key.clone());
        let server = HttpServer::start(move |request| {
            let wide = request_scope(request).contains("cloud-platform");
            let granted = match (request.path.as_str(), wide) {
                ("/subject", _) => return subject(request),
                ("/token", _) => by_form(request, &own).map(|()| &given),
                ("/sts", true) => exchange(request).map(|()| &federated),
                ("/sts", false) => exchange(request).map(|()| &given),
                (path, _) if path.ends_with(":generateAccessToken") => {
                    return impersonate(request, &federated, &given);
                }
                _ => Err("no such endpoint"),
            };
            match granted {
                Ok(issued) => {
                    let token = issued.issue();
                    if field(request, "grant_type") == "refresh_token" {
                        // A user may do everything.
                        federated.lock().insert(token.clone());
                    }
                    let token = json!({
                        "access_token": token,
                        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
                        "token_type": "Bearer",
                        "expires_in": 3600,
                    });
                    json_answer(StatusCode::OK, token.to_string())
                }
                Err(why) => refused(why),
            }
        });
        Self { server: server.await, issued, key }
    }

    /// Their HTTP server.
    pub fn server(&self) -> &HttpServer {
        &self.server
    }

    /// The tokens that are good.
    pub fn issued(&self) -> Issued {
        self.issued.clone()
    }

    /// Lets no token be good that was issued until now.
    pub fn revoke(&self) {
        let mut issued = self.issued.lock();
        let revoked = issued.drain().map(|token| format!("revoked {token}")).collect();
        // Their number makes the next one differ.
        *issued = revoked;
    }

    /// The file of a service account's key.
    pub fn service_account_file(&self) -> String {
        json!({
            "type": "service_account",
            "project_id": "big-kahuna-123456",
            "private_key_id": self.key.id(),
            "private_key": self.key.private_pem(),
            "client_email": SERVICE_ACCOUNT,
            "client_id": "1",
            "token_uri": format!("{}/token", self.server.url()),
        })
        .to_string()
    }

    /// The file that logging in as a user leaves.
    pub fn user_file(&self) -> String {
        self.user().to_string()
    }

    fn user(&self) -> Value {
        json!({
            "type": "authorized_user",
            "client_id": "client",
            "client_secret": "client-secret",
            "refresh_token": "refresh-token",
            "token_uri": format!("{}/token", self.server.url()),
        })
    }

    /// The file of a user who takes on the identity of a service account.
    pub fn impersonating_user_file(&self) -> String {
        json!({
            "type": "impersonated_service_account",
            "service_account_impersonation_url": self.impersonation_url(),
            "source_credentials": self.user(),
        })
        .to_string()
    }

    /// The file of workload identity federation, with or without another identity to take on.
    pub fn external_file(&self, source: SubjectSource<'_>, impersonates: bool) -> String {
        let source = match source {
            SubjectSource::File(path) => json!({ "file": path }),
            SubjectSource::Url => json!({
                "url": format!("{}/subject", self.server.url()),
                "headers": { "Metadata": "True" },
                "format": { "type": "json", "subject_token_field_name": "access_token" },
            }),
            SubjectSource::Aws(imds) => json!({
                "environment_id": "aws1",
                "region_url": format!("{imds}/latest/meta-data/placement/availability-zone"),
                "url": format!("{imds}/latest/meta-data/iam/security-credentials"),
                "regional_cred_verification_url": aws_subject::CALLER_IDENTITY,
                "imdsv2_session_token_url": format!("{imds}/latest/api/token"),
            }),
        };
        let kind = match source["environment_id"].is_null() {
            true => "urn:ietf:params:oauth:token-type:jwt",
            false => aws_subject::TOKEN_TYPE,
        };
        let mut file = json!({
            "type": "external_account",
            "audience": POOL,
            "subject_token_type": kind,
            "token_url": format!("{}/sts", self.server.url()),
            "credential_source": source,
        });
        if impersonates {
            file["service_account_impersonation_url"] = json!(self.impersonation_url());
        }
        file.to_string()
    }

    fn impersonation_url(&self) -> String {
        let path = format!("v1/projects/-/serviceAccounts/{SERVICE_ACCOUNT}:generateAccessToken");
        format!("{}/{path}", self.server.url())
    }

    /// The other issuer's token that is exchanged here.
    pub fn subject_token(&self) -> &'static str {
        SUBJECT
    }
}

fn field(request: &Request, name: &str) -> String {
    let mut fields = form_urlencoded::parse(&request.body);
    fields.find(|(key, _)| key == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
}

fn request_scope(request: &Request) -> String {
    field(request, "scope")
}

/// A service account's assertion, or a user's refresh token.
fn by_form(request: &Request, key: &SigningKey) -> Result<(), &'static str> {
    match field(request, "grant_type").as_str() {
        "urn:ietf:params:oauth:grant-type:jwt-bearer" => {
            check_assertion(&field(request, "assertion"), key)
        }
        "refresh_token"
            if field(request, "refresh_token") == "refresh-token"
                && field(request, "client_secret") == "client-secret" =>
        {
            Ok(())
        }
        _ => Err("unauthorized_client"),
    }
}

fn check_assertion(assertion: &str, key: &SigningKey) -> Result<(), &'static str> {
    let decode = |text: &str| URL_SAFE.decode(text).or_else(|_| URL_SAFE_NO_PAD.decode(text)).ok();
    let (signed, signature) = assertion.rsplit_once('.').ok_or("invalid_grant")?;
    let signature = decode(signature).ok_or("invalid_grant")?;
    let claims = signed.split('.').nth(1).and_then(decode).ok_or("invalid_grant")?;
    let claims: Value = serde_json::from_slice(&claims).map_err(|_| "invalid_grant")?;
    let scope = claims["scope"].as_str().unwrap_or_default();
    if !key.has_signed(signed.as_bytes(), &signature)
        || claims["iss"] != SERVICE_ACCOUNT
        || !claims["aud"].as_str().is_some_and(|audience| audience.ends_with("/token"))
        || claims["exp"].as_i64() <= claims["iat"].as_i64()
        || !scope.contains("compute.readonly")
    {
        return Err("invalid_grant");
    }
    Ok(())
}

/// The exchange of RFC 8693.
fn exchange(request: &Request) -> Result<(), &'static str> {
    let expected = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("audience", POOL),
        ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
    ];
    let subject = field(request, "subject_token");
    let vouched = match field(request, "subject_token_type").as_str() {
        "urn:ietf:params:oauth:token-type:jwt" => subject == SUBJECT,
        aws_subject::TOKEN_TYPE => aws_subject::is_signed(&subject, POOL),
        _ => false,
    };
    if vouched && expected.iter().all(|(name, value)| field(request, name) == *value) {
        return Ok(());
    }
    Err("invalid_grant")
}

fn subject(request: &Request) -> Response {
    if request.method != Method::GET || request.header("metadata") != "True" {
        return refused("no header");
    }
    json_answer(StatusCode::OK, json!({ "access_token": SUBJECT }).to_string())
}

fn impersonate(request: &Request, federated: &Issued, given: &Issued) -> Response {
    let token = request.header("authorization").strip_prefix("Bearer ").unwrap_or_default();
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let scope = body["scope"][0].as_str().unwrap_or_default();
    if !federated.knows(token) || !scope.contains("compute.readonly") {
        return refused("PERMISSION_DENIED");
    }
    let answer = json!({ "accessToken": given.issue(), "expireTime": "2100-01-01T00:00:00Z" });
    json_answer(StatusCode::OK, answer.to_string())
}

fn refused(why: &str) -> Response {
    json_answer(StatusCode::BAD_REQUEST, json!({ "error": why }).to_string())
}
