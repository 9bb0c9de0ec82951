//! What callers get, of a server that signs tokens of an hour.

use std::collections::VecDeque;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::SignedDuration;
use spire_core::entry::AdditionalAttributes;
use spire_core::id::SpiffeId;
use tonic::Status;

use super::*;
use crate::cache::samples::{entry, start};

/// A server that signs tokens of an hour, or fails as often as it is told to.
#[derive(Clone)]
struct Signer {
    clock: Clock,
    signed: Arc<Mutex<Vec<Vec<String>>>>,
    failures: Arc<Mutex<VecDeque<Status>>>,
}

impl Signer {
    fn new() -> Self {
        let clock = Clock::standing_at(start());
        Self { clock, signed: Arc::default(), failures: Arc::default() }
    }

    fn svids(&self, max_size: usize) -> JwtSvids {
        let signer = self.clone();
        let sign: SignJwt = Box::new(move |id, audience| {
            let signer = signer.clone();
            async move { signer.sign(&id, audience) }.boxed()
        });
        JwtSvids::new(sign, max_size, Duration::from_secs(30), self.clock.clone())
    }

    fn sign(&self, id: &EntryId, audience: Vec<String>) -> Result<JwtSvid, RpcError> {
        if let Some(failure) = self.failures.lock().unwrap().pop_front() {
            return Err(failure.into());
        }
        let mut signed = self.signed.lock().unwrap();
        signed.push(audience);
        let kid = if signed.len() == 1 { "first" } else { "later" };
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"kid":"{kid}"}}"#));
        Ok(JwtSvid {
            spiffe_id: SpiffeId::parse(&format!("spiffe://example.org/{id}")).unwrap(),
            token: format!("{header}.{}.", signed.len()).into(),
            issued_at: self.clock.now(),
            expires_at: self.clock.now() + SignedDuration::from_hours(1),
        })
    }

    fn count(&self) -> usize {
        self.signed.lock().unwrap().len()
    }
}

fn audience(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_token_is_kept_until_half_of_its_life_is_over() {
    let signer = Signer::new();
    let svids = signer.svids(10);
    let first = svids.fetch(&entry("e", &["a:b"]), &audience(&["x", "y"])).await.unwrap();
    signer.clock.advance(SignedDuration::from_mins(26));
    let second = svids.fetch(&entry("e", &["a:b"]), &audience(&["y", "x"])).await.unwrap();
    assert_eq!(first.token, second.token);
    signer.clock.advance(SignedDuration::from_mins(8));
    let third = svids.fetch(&entry("e", &["a:b"]), &audience(&["x", "y"])).await.unwrap();
    assert_ne!(first.token, third.token);
}

#[tokio::test]
async fn an_audience_that_was_given_twice_makes_another_token() {
    let signer = Signer::new();
    let svids = signer.svids(10);
    svids.fetch(&entry("e", &["a:b"]), &audience(&["x", "y"])).await.unwrap();
    svids.fetch(&entry("e", &["a:b"]), &audience(&["x", "y", "x"])).await.unwrap();
    assert_eq!((signer.count(), svids.count()), (2, 2));
}

#[tokio::test]
async fn tokens_with_an_id_of_their_own_are_never_kept() {
    let signer = Signer::new();
    let svids = signer.svids(10);
    let mut entry = entry("e", &["a:b"]);
    entry.attributes =
        Some(AdditionalAttributes { jwt_svid_include_jti: true, ..Default::default() });
    for _ in 0..2 {
        svids.fetch(&entry, &audience(&["x"])).await.unwrap();
    }
    assert_eq!((signer.count(), svids.count()), (2, 0));
}

#[tokio::test]
async fn the_limit_is_hard_and_the_least_used_token_goes() {
    let signer = Signer::new();
    let svids = signer.svids(2);
    for name in ["1", "2", "1", "3", "1"] {
        svids.fetch(&entry(name, &["a:b"]), &audience(&["x"])).await.unwrap();
    }
    assert_eq!((signer.count(), svids.count()), (3, 2));
    svids.fetch(&entry("2", &["a:b"]), &audience(&["x"])).await.unwrap();
    assert_eq!(signer.count(), 4);
}

#[tokio::test]
async fn a_kept_token_serves_while_its_renewal_fails() {
    let signer = Signer::new();
    let svids = signer.svids(10);
    let first = svids.fetch(&entry("e", &["a:b"]), &audience(&["x"])).await.unwrap();
    signer.clock.advance(SignedDuration::from_mins(40));
    let refused = Status::permission_denied("entry not found");
    signer.failures.lock().unwrap().extend([refused.clone(), refused]);
    let second = svids.fetch(&entry("e", &["a:b"]), &audience(&["x"])).await.unwrap();
    assert_eq!(first.token, second.token);
    signer.clock.advance(SignedDuration::from_mins(20));
    let error = svids.fetch(&entry("e", &["a:b"]), &audience(&["x"])).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to fetch JWT SVID: rpc error: code = PermissionDenied desc = entry not found"
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_for_a_moment_is_asked_again() {
    let signer = Signer::new();
    signer.failures.lock().unwrap().extend([Status::unavailable("away"), Status::aborted("")]);
    let svids = signer.svids(10);
    svids.fetch(&entry("e", &["a:b"]), &audience(&["x"])).await.unwrap();
    assert_eq!(signer.count(), 1);
}

#[tokio::test]
async fn callers_that_ask_at_once_share_one_request() {
    let signer = Signer::new();
    let svids = signer.svids(10);
    let (entry, audience) = (entry("e", &["a:b"]), audience(&["x"]));
    let all = futures::future::join_all((0..16).map(|_| svids.fetch(&entry, &audience))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(signer.count(), 1);
}

#[tokio::test]
async fn tokens_of_a_tainted_key_are_dropped() {
    let signer = Signer::new();
    let svids = signer.svids(10);
    for name in ["1", "2"] {
        svids.fetch(&entry(name, &["a:b"]), &audience(&["x"])).await.unwrap();
    }
    assert_eq!(svids.remove_signed_by(&["first".to_owned()]), 1);
    assert_eq!(svids.count(), 1);
}
