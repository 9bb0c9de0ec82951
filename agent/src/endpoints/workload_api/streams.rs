//! Answers that follow what a caller may have: the whole state at once, and again after each
//! change.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt, unfold};
use prost::Message;
use spire_core::selector::Selector;
use spire_core::wire::workload::{JwtBundlesResponse, X509BundlesResponse, X509svidResponse};
use tonic::Status;

use super::super::rate_limit::Method;
use super::WorkloadApi;
use crate::cache::{Subscription, Update};
use crate::workload::caller::Caller;

/// The answers to one call.
pub(super) type Stream<T> = BoxStream<'static, Result<T, Status>>;

impl WorkloadApi {
    pub(super) fn stream_x509_svids(
        &self,
        caller: Caller,
        found: &BTreeSet<Selector>,
    ) -> Stream<X509svidResponse> {
        let follower = self.follow(Method::FetchX509Svid, caller, found);
        follower.answers(Follower::entitled_to_svids, |follower, update| {
            follower.log_fetched(update);
            shared(update.x509_svid_response())
        })
    }

    pub(super) fn stream_x509_bundles(
        &self,
        caller: Caller,
        found: &BTreeSet<Selector>,
    ) -> Stream<X509BundlesResponse> {
        let follower = self.follow(Method::FetchX509Bundles, caller, found);
        without_repeats(follower.answers(Follower::entitled_to_bundles, |_, update| {
            shared(update.x509_bundles_response())
        }))
    }

    pub(super) fn stream_jwt_bundles(
        &self,
        caller: Caller,
        found: &BTreeSet<Selector>,
    ) -> Stream<JwtBundlesResponse> {
        let follower = self.follow(Method::FetchJwtBundles, caller, found);
        without_repeats(follower.answers(Follower::entitled_to_bundles, |_, update| {
            shared(update.jwt_bundles_response())
        }))
    }

    fn follow(&self, method: Method, caller: Caller, found: &BTreeSet<Selector>) -> Follower {
        let subscription = self.parts.cache.subscribe(found);
        Follower { api: self.clone(), method, caller, subscription }
    }
}

/// A stream to one caller.
struct Follower {
    api: WorkloadApi,
    method: Method,
    caller: Caller,
    subscription: Subscription,
}

impl Follower {
    /// What the caller gets of each update through `entitled`, as `answer` says it. The first error
    /// is the end.
    fn answers<T: Send + 'static>(
        self,
        entitled: fn(&Self, Arc<Update>) -> Result<Arc<Update>, Status>,
        answer: fn(&Self, &Update) -> Result<T, Status>,
    ) -> Stream<T> {
        unfold(Some(self), move |follower| async move {
            let mut follower = follower?;
            let update = follower.subscription.next().await;
            let answer = follower
                .check_caller()
                .and_then(|()| entitled(&follower, update))
                .and_then(|update| answer(&follower, &update));
            match answer {
                Ok(message) => Some((Ok(message), Some(follower))),
                Err(status) => Some((Err(status), None)),
            }
        })
        .boxed()
    }

    /// The process may have ended while its stream was idle, and its pid may be another's.
    fn check_caller(&self) -> Result<(), Status> {
        self.caller.check().map_err(|_| Status::unavailable("workload attestation failed"))
    }

    fn entitled_to_svids(&self, update: Arc<Update>) -> Result<Arc<Update>, Status> {
        if update.identities.is_empty() {
            return Err(self.no_identity());
        }
        Ok(update)
    }

    /// Callers without identity get the own bundle, where the operator allows that.
    fn entitled_to_bundles(&self, update: Arc<Update>) -> Result<Arc<Update>, Status> {
        if !update.identities.is_empty() {
            return Ok(update);
        }
        if self.api.parts.allow_unauthenticated_verifiers {
            return Ok(Update::of_own_bundle(&update.bundles.own).into());
        }
        Err(self.no_identity())
    }

    fn no_identity(&self) -> Status {
        self.api.no_identity(self.method, &self.caller, self.subscription.found())
    }

    fn log_fetched(&self, update: &Update) {
        let now = self.api.parts.clock.now();
        for identity in &update.identities {
            let ttl = identity.svid.svid.expires_at.duration_since(now).as_secs();
            tracing::debug!(
                subsystem_name = "endpoints",
                service = "WorkloadAPI",
                method = self.method.name(),
                pid = self.caller.process().pid,
                registered = true,
                spiffe_id = %identity.entry.spiffe_id,
                ttl,
                "Fetched X.509 SVID"
            );
        }
    }
}

/// A message whose parts point into the encoded form that all callers share.
fn shared<T: Message + Default>(encoded: Bytes) -> Result<T, Status> {
    T::decode(encoded).map_err(|error| Status::internal(error.to_string()))
}

/// Leaves out a message that says what the one before it said.
fn without_repeats<T: PartialEq + Clone + Send + 'static>(answers: Stream<T>) -> Stream<T> {
    let mut last: Option<T> = None;
    answers
        .filter(move |answer| {
            let is_new = match answer {
                Ok(message) => last.as_ref() != Some(message),
                Err(_) => true,
            };
            if let (true, Ok(message)) = (is_new, answer) {
                last = Some(message.clone());
            }
            std::future::ready(is_new)
        })
        .boxed()
}
