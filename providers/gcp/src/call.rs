//! One request, made again where that helps.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use http::StatusCode;
use spire_core::remote::{Answer, RemoteError};

/// The first pause; each is twice the one before, and as much as that longer by chance.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause, without what chance adds.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);
/// More than any time limit leaves room for.
const MAX_RETRIES: usize = 32;

/// Makes a request until it is answered, for as long as `limit` at most. A service that is busy,
/// out of order or out of reach is asked again; where it stays so, that is what comes back.
///
/// # Errors
/// [`RemoteError`]
pub(crate) async fn until_answered<F>(
    attempt: impl Fn() -> F,
    limit: Duration,
) -> Result<Answer, RemoteError>
where
    F: Future<Output = Result<Answer, RemoteError>>,
{
    let last = std::sync::Mutex::new(None);
    let remember = |failed: &Result<Answer, RemoteError>| {
        let failed = failed.as_ref().cloned().map_err(ToString::to_string);
        *last.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(failed);
    };
    let attempts = || async {
        match attempt().await {
            Ok(answer) if !is_passing(answer.status) => Ok(answer),
            failed => {
                remember(&failed);
                Err(failed)
            }
        }
    };
    let pauses = ExponentialBuilder::new()
        .with_jitter()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_max_times(MAX_RETRIES);
    let worth_it = |failed: &Result<Answer, RemoteError>| match failed {
        Ok(_) | Err(RemoteError::Unreachable(_)) => true,
        Err(RemoteError::TooSlow(_) | RemoteError::TooLong(_) | RemoteError::Client(_)) => false,
    };
    let answered = tokio::time::timeout(limit, attempts.retry(pauses).when(worth_it)).await;
    match answered {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(failed)) => failed,
        Err(_) => match last.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(error)) => Err(RemoteError::Unreachable(error)),
            None => Err(RemoteError::TooSlow(limit)),
        },
    }
}

fn is_passing(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

/// The beginning of an answer's body, for a person: one line, without what a terminal would obey.
pub(crate) fn excerpt(answer: &Answer) -> String {
    const LONGEST: usize = 200;
    let text = String::from_utf8_lossy(&answer.body[..answer.body.len().min(LONGEST)]);
    text.split(|character: char| character.is_control() || character == ' ')
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}
