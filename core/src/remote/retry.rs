//! One request, made again where that helps.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use http::StatusCode;
use http::header::RETRY_AFTER;

use super::{Answer, RemoteError};

/// The first pause; each is twice the one before, and as much as that longer by chance.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause, without what chance adds, whatever the service asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);
/// More than any time limit leaves room for.
const MAX_RETRIES: usize = 32;

/// Makes a request until it is answered, for as long as `limit` at most. A service that is busy,
/// out of order or out of reach is asked again; where it stays so, that is what comes back. One
/// that lets wait has had its time.
///
/// # Errors
/// [`RemoteError`]
pub async fn until_answered<F>(
    attempt: impl Fn() -> F,
    limit: Duration,
) -> Result<Answer, RemoteError>
where
    F: Future<Output = Result<Answer, RemoteError>>,
{
    let last = Mutex::new(None);
    let remember = |failed: &Result<Answer, RemoteError>| {
        let failed = failed.as_ref().cloned().map_err(ToString::to_string);
        *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(failed);
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
    let retried = attempts.retry(pauses).when(worth_it).adjust(|failed, pause| {
        let asked = failed.as_ref().ok().and_then(asked_pause);
        pause.map(|pause| asked.map_or(pause, |asked| asked.clamp(pause, LONGEST_PAUSE.max(pause))))
    });
    match tokio::time::timeout(limit, retried).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(failed)) => failed,
        Err(_) => match last.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(error)) => Err(RemoteError::Unreachable(error)),
            None => Err(RemoteError::TooSlow(limit)),
        },
    }
}

fn is_passing(status: StatusCode) -> bool {
    matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
        || status.is_server_error()
}

/// How long the service asks to wait, in seconds; a date is not taken.
fn asked_pause(answer: &Answer) -> Option<Duration> {
    let seconds = answer.headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue};
    use tokio::time::Instant;

    use super::*;

    fn answer(status: u16, retry_after: Option<&'static str>) -> Answer {
        let headers = retry_after.map(|value| (RETRY_AFTER, HeaderValue::from_static(value)));
        let headers: HeaderMap = headers.into_iter().collect();
        Answer { status: StatusCode::from_u16(status).unwrap(), headers, body: Bytes::new() }
    }

    /// What comes back where `answers` come one after the other, the last for ever; how often the
    /// service was asked, and how long it took.
    async fn asked(
        answers: &[Result<Answer, RemoteError>],
        limit: Duration,
    ) -> (Result<u16, RemoteError>, usize, Duration) {
        let (count, began) = (Mutex::new(0), Instant::now());
        let attempt = || async {
            let number = {
                let mut count = count.lock().unwrap();
                *count += 1;
                *count
            };
            match answers.get(number - 1).or(answers.last()).unwrap() {
                Ok(answer) => Ok(answer.clone()),
                Err(RemoteError::TooSlow(limit)) => Err(RemoteError::TooSlow(*limit)),
                Err(other) => Err(RemoteError::Unreachable(other.to_string())),
            }
        };
        let result = until_answered(attempt, limit).await;
        let count = *count.lock().unwrap();
        (result.map(|answer| answer.status.as_u16()), count, began.elapsed())
    }

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn what_passes_is_waited_for_and_what_does_not_is_not() {
        let reset = || Err(RemoteError::Unreachable("reset".to_owned()));
        for passing in [Ok(answer(429, None)), Ok(answer(503, None)), reset()] {
            let answers = [passing, reset(), Ok(answer(200, None))];
            let (result, count, _) = asked(&answers, LIMIT).await;
            assert_eq!((result.unwrap(), count), (200, 3));
        }
        for status in [200, 302, 400, 401, 403, 404] {
            let (result, count, _) = asked(&[Ok(answer(status, None))], LIMIT).await;
            assert_eq!((result.unwrap(), count), (status, 1));
        }
        let (result, count, _) = asked(&[Err(RemoteError::TooSlow(LIMIT))], LIMIT).await;
        assert!(matches!(result, Err(RemoteError::TooSlow(_))) && count == 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_lasts_comes_back_in_time() {
        let (result, count, took) = asked(&[Ok(answer(503, None))], LIMIT).await;
        assert_eq!(result.unwrap(), 503);
        assert!((4..12).contains(&count) && took == LIMIT, "{count} times in {took:?}");
        let reset = Err(RemoteError::Unreachable("reset".to_owned()));
        let (result, _, _) = asked(&[reset], LIMIT).await;
        assert_eq!(result.unwrap_err().to_string(), "reset");
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_may_ask_for_a_longer_pause_within_bounds() {
        for (seconds, least, most) in [("0", 0, 1), ("2", 2, 3), ("3600", 4, 5), ("soon", 0, 1)] {
            let answers = [Ok(answer(429, Some(seconds))), Ok(answer(200, None))];
            let (_, _, took) = asked(&answers, LIMIT).await;
            assert!((least..=most).contains(&took.as_secs()), "{seconds}: {took:?}");
        }
    }
}
