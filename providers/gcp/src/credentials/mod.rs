//! By which the server proves itself to Google's APIs: access tokens, from a file with credentials
//! or from the metadata server, fetched once for all who wait and kept until they expire.

mod aws;
mod external;
mod file;
mod oauth;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use jiff::{SignedDuration, Timestamp};
use spire_core::clock::Clock;
use spire_core::remote::{Client, Flight};
use zeroize::Zeroizing;

use crate::metadata::Metadata;

pub(crate) use file::CredentialFile;

/// A token is replaced this long before it expires: it is used by calls that take a while.
const MARGIN: SignedDuration = SignedDuration::from_secs(60);
/// The variable that names a file with credentials.
const FILE_VARIABLE: &str = "GOOGLE_APPLICATION_CREDENTIALS";
/// Where the command line of Google Cloud leaves credentials, below the home folder.
const WELL_KNOWN: &str = ".config/gcloud/application_default_credentials.json";

/// What a token may be used for.
const SCOPE: &str = "https://www.googleapis.com/auth/compute.readonly";

/// What a call to an API is made with.
#[derive(Clone)]
pub(crate) struct AccessToken {
    /// The token itself.
    pub(crate) secret: Arc<Zeroizing<String>>,
    /// When it ceases to be good.
    pub(crate) expires_at: Timestamp,
}

/// Why there is no token, for the operator.
#[derive(Debug, Clone, thiserror::Error)]
#[error("no credentials for the Compute API: {0}")]
pub(crate) struct CredentialError(pub(crate) String);

/// Where tokens come from.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    /// A file, read anew for each token.
    File(PathBuf),
    /// The service account of the instance that this server runs on.
    Metadata(Metadata),
}

/// Access tokens.
pub(crate) struct Credentials {
    shared: Arc<Shared>,
    flight: Flight<Result<AccessToken, CredentialError>>,
}

struct Shared {
    origin: Origin,
    client: Client,
    clock: Clock,
    held: Mutex<Option<AccessToken>>,
}

/// The file with credentials that the environment names: by its variable, else at the well-known
/// place if it is there.
pub(crate) fn file_of_environment() -> Option<PathBuf> {
    file_of(|name| std::env::var_os(name), std::env::home_dir())
}

fn file_of(variable: impl Fn(&str) -> Option<OsString>, home: Option<PathBuf>) -> Option<PathBuf> {
    let named = variable(FILE_VARIABLE).filter(|path| !path.is_empty());
    named.map(PathBuf::from).or_else(|| {
        let path = home?.join(WELL_KNOWN);
        path.is_file().then_some(path)
    })
}

impl Credentials {
    pub(crate) fn new(origin: Origin, client: Client, clock: Clock) -> Self {
        let shared = Shared { origin, client, clock, held: Mutex::default() };
        Self { shared: Arc::new(shared), flight: Flight::default() }
    }

    /// A token that is good for a while.
    ///
    /// # Errors
    /// [`CredentialError`]
    pub(crate) async fn token(&self) -> Result<AccessToken, CredentialError> {
        if let Some(token) = self.shared.held() {
            return Ok(token);
        }
        let shared = self.shared.clone();
        self.flight.join(move || shared.fetch().boxed()).await
    }

    /// Forgets `token`, which an API did not take.
    pub(crate) fn forget(&self, token: &AccessToken) {
        let mut held = self.shared.lock();
        if held.as_ref().is_some_and(|held| Arc::ptr_eq(&held.secret, &token.secret)) {
            *held = None;
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<AccessToken>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> Option<AccessToken> {
        let good_until = self.clock.now() + MARGIN;
        self.lock().clone().filter(|token| token.expires_at > good_until)
    }

    async fn fetch(self: Arc<Self>) -> Result<AccessToken, CredentialError> {
        let now = self.clock.now();
        let token = match &self.origin {
            Origin::File(path) => {
                let file = CredentialFile::read_async(path).await?;
                file.token(&self.client, now).await
            }
            Origin::Metadata(metadata) => of_metadata(metadata, now).await,
        };
        let token = token.map_err(CredentialError)?;
        *self.lock() = Some(token.clone());
        Ok(token)
    }
}

async fn of_metadata(metadata: &Metadata, now: Timestamp) -> Result<AccessToken, String> {
    let item = format!("token?scopes={SCOPE}");
    let answer = metadata.of_account("default", &item).await.map_err(|error| error.to_string())?;
    oauth::read(&answer, now)
}

#[cfg(test)]
mod tests {
    use spire_core::remote::Endpoints;
    use spire_fakes::gcp::{Google, Vm};

    use super::*;
    use crate::metadata;

    #[test]
    fn the_file_is_that_of_the_variable_or_the_one_that_the_command_line_leaves() {
        let home = tempfile::tempdir().unwrap();
        let file = |value: Option<&str>| {
            let variable = |name: &str| {
                assert_eq!(name, "GOOGLE_APPLICATION_CREDENTIALS");
                value.map(OsString::from)
            };
            file_of(variable, Some(home.path().to_owned()))
        };
        assert_eq!(file(None), None);
        let left = home.path().join(".config/gcloud/application_default_credentials.json");
        std::fs::create_dir_all(left.parent().unwrap()).unwrap();
        std::fs::write(&left, "{}").unwrap();
        assert_eq!(file(None), Some(left.clone()));
        assert_eq!(file(Some("")), Some(left));
        assert_eq!(file(Some("/named")), Some("/named".into()));
    }

    #[tokio::test]
    async fn the_machine_that_the_server_runs_on_has_a_token_for_it() {
        let google = Google::start().await;
        let fake = google.launch(&Vm::new("spire-server", 1)).await;
        let endpoint = metadata::endpoint(None, Some(fake.host())).unwrap();
        let client = Client::of_metadata(&Endpoints::default()).unwrap();
        let origin = Origin::Metadata(Metadata::new(client.clone(), endpoint));
        let clock = Clock::standing_at(Timestamp::UNIX_EPOCH);
        let credentials = Credentials::new(origin, client, clock.clone());
        let token = credentials.token().await.unwrap();
        assert_eq!(token.expires_at, Timestamp::from_second(3599).unwrap());
        let request = &fake.server().requests()[0];
        assert_eq!(
            (request.path.as_str(), request.query.as_str()),
            (
                "/computeMetadata/v1/instance/service-accounts/default/token",
                "scopes=https://www.googleapis.com/auth/compute.readonly"
            )
        );
        clock.advance(SignedDuration::from_secs(3500));
        credentials.token().await.unwrap();
        assert_eq!(fake.server().count(), 1);
        clock.advance(SignedDuration::from_secs(60));
        assert_ne!(credentials.token().await.unwrap().secret, token.secret);
        fake.change(|vm| vm.service_account = None);
        credentials.forget(&credentials.token().await.unwrap());
        let error = credentials.token().await.err().unwrap().to_string();
        assert!(error.contains("attach a service account"), "{error}");
    }
}
