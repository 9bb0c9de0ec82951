//! Client of the instance metadata service, version 2: whoever asks shows a token, which a
//! forwarded request cannot get.
//!
//! # Source
//! EC2 User Guide, "Use the Instance Metadata Service to access instance metadata".

use std::time::Duration;

use http::{Method, StatusCode};
use spire_core::node::EvidenceError;
use spire_core::remote::{Answer, Client, Endpoint, RemoteError, until_answered};

/// How long one answer may take, and all attempts together. The service is on the same machine.
const ANSWER: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(4);
/// Largest answer in bytes.
const MAX_BYTES: usize = 32 << 10;
/// How long a token is good, in seconds; it is used at once.
const TOKEN_SECONDS: &str = "300";
const TOKEN_SECONDS_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";
const TOKEN_PATH: &str = "/latest/api/token";

/// The metadata service of this instance.
#[derive(Debug)]
pub(crate) struct Metadata {
    client: Client,
    endpoint: Endpoint,
    allow_v1: bool,
}

/// How requests are made: with a token, or without one as in version 1.
enum Session {
    Token(String),
    Version1,
}

impl Metadata {
    /// The service at `endpoint`. Version 1 is used only where it is allowed and version 2 is not
    /// there.
    pub(crate) fn new(client: Client, endpoint: Endpoint, allow_v1: bool) -> Self {
        Self { client, endpoint, allow_v1 }
    }

    /// What stands at each of `paths`, as it is.
    ///
    /// # Errors
    /// Says what could not be had and what is the usual cause.
    pub(crate) async fn texts<const N: usize>(
        &self,
        paths: [&str; N],
    ) -> Result<[String; N], EvidenceError> {
        let mut session = self.session().await?;
        let mut texts = [const { String::new() }; N];
        for (path, text) in paths.into_iter().zip(&mut texts) {
            let mut answer = self.read(path, &session).await?;
            if answer.status == StatusCode::UNAUTHORIZED {
                // The token was good a moment ago: the service has been started anew.
                session = self.session().await?;
                answer = self.read(path, &session).await?;
            }
            *text = self.text(path, answer)?;
        }
        Ok(texts)
    }

    async fn session(&self) -> Result<Session, EvidenceError> {
        let answer = self.ask(|client, endpoint| {
            let request = client.request(Method::PUT, endpoint.url(TOKEN_PATH));
            request.header(TOKEN_SECONDS_HEADER, TOKEN_SECONDS)
        });
        match answer.await {
            Ok(answer) if answer.status.is_success() => {
                let token = self.text(TOKEN_PATH, answer)?;
                Ok(Session::Token(token))
            }
            Ok(answer) => match answer.status.as_u16() {
                403..=405 if self.allow_v1 => Ok(Session::Version1),
                403 => Err(self.failed(
                    "refuses a token (403 Forbidden): the service is disabled for this instance; \
                     enable it with aws ec2 modify-instance-metadata-options --http-endpoint \
                     enabled",
                )),
                404 | 405 => Err(self.failed(
                    "knows no tokens, so it has version 1 only; set allow_imds_v1 = true if it is \
                     to be trusted nevertheless",
                )),
                status => {
                    Err(self.failed(&format!("answered the request for a token with {status}")))
                }
            },
            Err(_) if self.allow_v1 => Ok(Session::Version1),
            Err(error @ RemoteError::TooSlow(_)) => Err(self.failed(&format!(
                "gave no token: {error}; in a container the hop limit of its answers is the usual \
                 cause: set it to 2 with aws ec2 modify-instance-metadata-options \
                 --http-put-response-hop-limit 2"
            ))),
            Err(error) => Err(self.failed(&format!(
                "cannot be asked for a token: {error}; is this an EC2 instance, and may this \
                 process reach its metadata service?"
            ))),
        }
    }

    async fn read(&self, path: &str, session: &Session) -> Result<Answer, EvidenceError> {
        let answer = self.ask(|client, endpoint| {
            let request = client.request(Method::GET, endpoint.url(path));
            match session {
                Session::Token(token) => request.header(TOKEN_HEADER, token),
                Session::Version1 => request,
            }
        });
        answer.await.map_err(|error| self.failed(&format!("did not give {path}: {error}")))
    }

    async fn ask(
        &self,
        request: impl Fn(&Client, &Endpoint) -> reqwest::RequestBuilder,
    ) -> Result<Answer, RemoteError> {
        let attempt = || {
            let request = request(&self.client, &self.endpoint);
            self.client.send(request, ANSWER, MAX_BYTES)
        };
        until_answered(attempt, LIMIT).await
    }

    fn text(&self, path: &str, answer: Answer) -> Result<String, EvidenceError> {
        if !answer.status.is_success() {
            let status = answer.status.as_u16();
            return Err(self.failed(&format!("answered the request for {path} with {status}")));
        }
        String::from_utf8(answer.body.into())
            .map_err(|_| self.failed(&format!("gave something other than text for {path}")))
    }

    fn failed(&self, what: &str) -> EvidenceError {
        let endpoint = self.endpoint.as_str();
        EvidenceError(format!("the EC2 metadata service at {endpoint} {what}"))
    }
}
