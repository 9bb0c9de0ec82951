//! What a token says, and the rules that are the same whoever says it.

use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{JwsError, json};

/// The claims of a token, each there once.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims(Map<String, Value>);

impl Claims {
    pub(super) fn read(text: &[u8]) -> Result<Self, JwsError> {
        let claims = json::object(text);
        claims.map(Self).map_err(|error| malformed(format!("token claims cannot be read: {error}")))
    }

    /// The claims as `T`.
    ///
    /// # Errors
    /// [`JwsError::Malformed`] where one has another type.
    pub fn to<T: DeserializeOwned>(&self) -> Result<T, JwsError> {
        // The copy is small: a token is bounded.
        serde_json::from_value(Value::Object(self.0.clone()))
            .map_err(|error| malformed(format!("token claims cannot be read: {error}")))
    }

    /// A claim that is a text; `None` where it is absent.
    ///
    /// # Errors
    /// [`JwsError::Malformed`] where it is something else.
    pub fn text(&self, name: &str) -> Result<Option<&str>, JwsError> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(malformed(format!("token has a claim {name} that is no text"))),
        }
    }

    /// A claim that is a time in seconds since 1970; `None` where it is absent.
    ///
    /// # Errors
    /// [`JwsError::Malformed`] where it is something else, or too far away for a calendar.
    pub fn instant(&self, name: &str) -> Result<Option<Timestamp>, JwsError> {
        let value = match self.0.get(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(value) => value,
        };
        // A cast of a fraction rounds towards zero and stays within the bounds of the type.
        let seconds = value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds as i64));
        let time = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
        time.map(Some).ok_or_else(|| malformed(format!("token has a claim {name} that is no time")))
    }

    /// Makes sure that the token is for `audience`, among others or alone.
    ///
    /// # Errors
    /// [`JwsError::Refused`]; [`JwsError::Malformed`] where `aud` is neither a text nor texts.
    pub fn check_audience(&self, audience: &str) -> Result<(), JwsError> {
        let wrong =
            || malformed("token has a claim aud that is neither a text nor a list of texts");
        let given = match self.0.get("aud") {
            None | Some(Value::Null) => {
                return Err(refused(format!("token is for nobody (aud), not for {audience:?}")));
            }
            Some(Value::String(text)) => vec![text.as_str()],
            Some(Value::Array(list)) => {
                let texts = list.iter().map(|value| value.as_str().ok_or_else(wrong));
                texts.collect::<Result<Vec<_>, _>>()?
            }
            Some(_) => return Err(wrong()),
        };
        if given.contains(&audience) {
            return Ok(());
        }
        Err(refused(format!("token is for {given:?} (aud), not for {audience:?}")))
    }

    /// Makes sure that it is the token's time, by clocks that may differ by `leeway`: it must have
    /// an end, and neither its beginning nor its issue may lie ahead.
    ///
    /// # Errors
    /// [`JwsError::Refused`]; [`JwsError::Malformed`] for what is no time.
    pub fn check_times(&self, now: Timestamp, leeway: SignedDuration) -> Result<(), JwsError> {
        let (expires, begins, issued) =
            (self.instant("exp")?, self.instant("nbf")?, self.instant("iat")?);
        let expires = expires.ok_or_else(|| refused("token never expires (no exp)"))?;
        if now.duration_since(expires) > leeway {
            return Err(refused(format!("token has expired at {expires}; it is {now}")));
        }
        let ahead = |time: &Timestamp| time.duration_since(now) > leeway;
        if let Some(time) = begins.filter(ahead) {
            return Err(refused(format!("token is not valid before {time} (nbf); it is {now}")));
        }
        if let Some(time) = issued.filter(ahead) {
            return Err(refused(format!("token was issued in the future, at {time}; it is {now}")));
        }
        Ok(())
    }
}

fn malformed(reason: impl Into<String>) -> JwsError {
    JwsError::Malformed(reason.into())
}

fn refused(reason: impl Into<String>) -> JwsError {
    JwsError::Refused(reason.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn claims(value: Value) -> Claims {
        Claims::read(value.to_string().as_bytes()).unwrap()
    }

    fn times(value: Value) -> Result<(), JwsError> {
        let now = Timestamp::from_second(NOW).unwrap();
        claims(value).check_times(now, SignedDuration::from_secs(60))
    }

    #[test]
    fn the_edges_of_time_are_exact() {
        for good in [
            json!({"exp": NOW - 60}),
            json!({"exp": NOW, "iat": NOW + 60, "nbf": NOW + 60}),
            json!({"exp": NOW as f64 + 0.5}),
        ] {
            times(good.clone()).unwrap_or_else(|error| panic!("{good}: {error}"));
        }
        for late in [
            json!({}),
            json!({"exp": null}),
            json!({"exp": NOW - 61}),
            json!({"exp": NOW, "iat": NOW + 61}),
            json!({"exp": NOW, "nbf": NOW + 61}),
            json!({"exp": -1}),
        ] {
            let error = times(late.clone()).unwrap_err();
            assert!(matches!(error, JwsError::Refused(_)), "{late}: {error}");
        }
        for no_time in [
            json!({"exp": "1800000000"}),
            json!({"exp": u64::MAX}),
            json!({"exp": 1e300}),
            json!({"exp": NOW, "iat": []}),
            json!({"exp": NOW, "nbf": i64::MIN}),
        ] {
            let error = times(no_time.clone()).unwrap_err();
            assert!(matches!(error, JwsError::Malformed(_)), "{no_time}: {error}");
        }
    }

    #[test]
    fn an_audience_is_one_text_or_a_list() {
        let check = |value: Value| claims(json!({ "aud": value })).check_audience("me");
        check(json!("me")).unwrap();
        check(json!(["you", "me"])).unwrap();
        for other in [json!("you"), json!(["you"]), json!([]), json!(null), json!("ME")] {
            assert!(matches!(check(other), Err(JwsError::Refused(_))));
        }
        for wrong in [json!(1), json!(["me", 1]), json!({"me": 1})] {
            assert!(matches!(check(wrong), Err(JwsError::Malformed(_))));
        }
    }
}
