//! Token endpoints: a form is sent, an access token comes back.

use std::time::Duration;

use http::{Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use reqwest::RequestBuilder;
use serde::Deserialize;
use spire_core::remote::{Answer, Client, until_answered};
use url::Url;
use zeroize::Zeroizing;

use super::AccessToken;

/// How long one request may take, and all attempts together.
const ATTEMPT: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(10);
/// Longest answer in bytes that is read.
const MAX_BYTES: usize = 64 << 10;

/// What a token endpoint answers.
///
/// # Source
/// RFC 6749, 5.1; RFC 8693, 2.2.1.
#[derive(Deserialize)]
struct Granted {
    access_token: Zeroizing<String>,
    expires_in: Option<i64>,
}

/// Where the token is from; it has no longer a life where the endpoint does not say so.
const DEFAULT_LIFE: i64 = 3600;

/// Sends `form` to a token endpoint; `complete` adds what else the request needs.
///
/// # Errors
/// What went wrong, without anything secret.
pub(super) async fn grant(
    client: &Client,
    url: &str,
    form: &[(&str, &str)],
    complete: impl Fn(RequestBuilder) -> RequestBuilder,
    now: Timestamp,
) -> Result<AccessToken, String> {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let body = Zeroizing::new(body);
    let send = |request: RequestBuilder| {
        let kind = "application/x-www-form-urlencoded";
        complete(request.header("content-type", kind).body(body.to_string()))
    };
    read(&ask(client, Method::POST, url, send).await?, now)
}

/// Makes a request to a place that a file names.
///
/// # Errors
/// What went wrong, without anything secret.
pub(super) async fn ask(
    client: &Client,
    method: Method,
    url: &str,
    complete: impl Fn(RequestBuilder) -> RequestBuilder,
) -> Result<Answer, String> {
    let parsed = Url::parse(url).map_err(|error| format!("{url:?} is no URL: {error}"))?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(format!("{url:?} is no http or https URL"));
    }
    let attempt = || {
        let request = complete(client.request(method.clone(), parsed.clone()));
        client.send(request, ATTEMPT, MAX_BYTES)
    };
    let answer = until_answered(attempt, LIMIT).await;
    let answer = answer.map_err(|error| format!("{}: {error}", origin(&parsed)))?;
    if answer.status == StatusCode::OK {
        return Ok(answer);
    }
    let (status, said) = (answer.status, answer.excerpt());
    Err(format!("{} answers with status {status}: {said}", origin(&parsed)))
}

/// Reads the token out of the answer.
///
/// # Errors
/// That there is none; what there is instead is not shown.
pub(super) fn read(answer: &Answer, now: Timestamp) -> Result<AccessToken, String> {
    let granted: Granted = serde_json::from_slice(&answer.body)
        .map_err(|_| "the token endpoint's answer has no access token".to_owned())?;
    Ok(AccessToken::new(granted.access_token, now, granted.expires_in.unwrap_or(DEFAULT_LIFE)))
}

impl AccessToken {
    /// A token that is good for so many seconds from `now` on.
    pub(super) fn new(secret: Zeroizing<String>, now: Timestamp, seconds: i64) -> Self {
        let life = SignedDuration::from_secs(seconds);
        let expires_at = now.saturating_add(life).unwrap_or(now);
        Self { secret: secret.into(), expires_at }
    }
}

fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}
