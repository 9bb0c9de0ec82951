//! The server's own credentials: got once for all accounts, regions and services that are asked with
//! them. The SDK keeps them for each client, and not at all where a role is assumed with them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use spire_core::remote::Flight;

/// How long before their end they are got anew.
const MARGIN: Duration = Duration::from_secs(60);
/// How long those are kept that name no end: whoever gives them may give out others some day.
const UNDATED: Duration = Duration::from_secs(15 * 60);

type Got = Result<Credentials, Arc<CredentialsError>>;

/// Credentials that are kept until they end, and got once for all who wait for them.
#[derive(Debug)]
pub(crate) struct Kept {
    common: Arc<Common>,
    flight: Flight<Got>,
}

#[derive(Debug)]
struct Common {
    source: SharedCredentialsProvider,
    /// The credentials, and until when they are good.
    kept: Mutex<Option<(Credentials, SystemTime)>>,
}

impl Kept {
    /// Keeps what `source` gives.
    pub(crate) fn new(source: SharedCredentialsProvider) -> Self {
        let common = Arc::new(Common { source, kept: Mutex::default() });
        Self { common, flight: Flight::default() }
    }

    async fn get(&self) -> Result<Credentials, CredentialsError> {
        if let Some(credentials) = self.common.kept() {
            return Ok(credentials);
        }
        let common = self.common.clone();
        let got = self.flight.join(|| Box::pin(common.get())).await;
        got.map_err(CredentialsError::provider_error)
    }
}

impl Common {
    fn kept(&self) -> Option<Credentials> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let good = kept.as_ref().filter(|(_, until)| SystemTime::now() < *until);
        good.map(|(credentials, _)| credentials.clone())
    }

    async fn get(self: Arc<Self>) -> Got {
        let credentials = self.source.provide_credentials().await.map_err(Arc::new)?;
        let until = match credentials.expiry() {
            Some(end) => end.checked_sub(MARGIN),
            None => SystemTime::now().checked_add(UNDATED),
        };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = until.map(|until| (credentials.clone(), until));
        Ok(credentials)
    }
}

impl ProvideCredentials for Kept {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.get())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Gives credentials that end after so long, and counts how often.
    #[derive(Debug)]
    struct Source {
        lifetime: Option<Duration>,
        fails: bool,
        asked: Arc<AtomicU32>,
    }

    impl ProvideCredentials for Source {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::new(async {
                self.asked.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                if self.fails {
                    return Err(CredentialsError::provider_error("out of order"));
                }
                let end = self.lifetime.map(|lifetime| SystemTime::now() + lifetime);
                Ok(Credentials::new("id", "secret", None, end, "test"))
            })
        }
    }

    async fn asked_for(lifetime: Option<u64>, fails: bool) -> u32 {
        let asked = Arc::new(AtomicU32::new(0));
        let lifetime = lifetime.map(Duration::from_secs);
        let source = Source { lifetime, fails, asked: asked.clone() };
        let kept = Kept::new(SharedCredentialsProvider::new(source));
        for _ in 0..2 {
            let (one, other) = tokio::join!(kept.get(), kept.get());
            assert_eq!((one.is_err(), other.is_err()), (fails, fails));
        }
        asked.load(Ordering::SeqCst)
    }

    #[tokio::test]
    async fn they_are_got_once_until_shortly_before_they_end() {
        assert_eq!(asked_for(Some(3600), false).await, 1);
        assert_eq!(asked_for(None, false).await, 1);
        assert_eq!(asked_for(Some(30), false).await, 2);
        assert_eq!(asked_for(Some(3600), true).await, 2);
    }
}
