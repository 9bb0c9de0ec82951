//! The SPIFFE Workload API: what a workload asks of the agent on its node.
//!
//! # Source
//! SPIFFE Workload Endpoint; SPIFFE Workload API.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt, unfold};
use prost::Message;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct};
use serde_json::{Map, Value};
use spire_core::bundle::Bundle;
use spire_core::clock::Clock;
use spire_core::entry::Entry;
use spire_core::id::{SpiffeId, TrustDomain};
use spire_core::selector::Selector;
use spire_core::svid::jwt;
use spire_core::telemetry::log::with_causes;
use spire_core::wire::workload::spiffe_workload_api_server::SpiffeWorkloadApi;
use spire_core::wire::workload::{
    JwtBundlesRequest, JwtBundlesResponse, Jwtsvid, JwtsvidRequest, JwtsvidResponse,
    ValidateJwtsvidRequest, ValidateJwtsvidResponse, WitBundlesRequest, WitBundlesResponse,
    WitsvidRequest, WitsvidResponse, X509BundlesRequest, X509BundlesResponse, X509svidRequest,
    X509svidResponse,
};
use tonic::{Request, Response, Status};

use super::connection::FoundCaller;
use crate::cache::{Cache, JwtSvids, Subscription, Update};
use crate::workload::WorkloadAttestors;
use crate::workload::caller::Caller;

/// Audiences in one request for a JWT-SVID.
const MAX_AUDIENCES: usize = 64;
/// Bytes of one audience.
const MAX_AUDIENCE_BYTES: usize = 4096;

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct WorkloadApi(Arc<Parts>);

/// What the service works with.
pub struct Parts {
    /// The identities of this node.
    pub cache: Arc<Cache>,
    /// Its JWT-SVIDs.
    pub jwt_svids: JwtSvids,
    /// Who a caller is.
    pub attestors: WorkloadAttestors,
    /// The trust domain that is served.
    pub trust_domain: TrustDomain,
    /// Whether callers without identity get the own trust domain's bundle.
    pub allow_unauthenticated_verifiers: bool,
    /// Claims that stay in the validated token of another trust domain beside the standard's.
    pub allowed_foreign_jwt_claims: BTreeSet<String>,
    /// Types of selectors that may be logged for a caller without identity.
    pub log_selectors: BTreeSet<String>,
    /// The time.
    pub clock: Clock,
}

impl WorkloadApi {
    /// The service made of its parts.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// Who calls, and what was found about it. The header that every call must carry is looked at
    /// before anything else.
    async fn attest<T>(
        &self,
        request: &Request<T>,
    ) -> Result<(Caller, BTreeSet<Selector>), Status> {
        check_header(request)?;
        let failed = || Status::unavailable("workload attestation failed");
        let found = request.extensions().get::<FoundCaller>().ok_or_else(failed)?;
        let caller = match &**found {
            Ok(caller) => caller.clone(),
            Err(error) => {
                tracing::error!(
                    subsystem_name = "endpoints",
                    error = with_causes(error),
                    "Caller is not known"
                );
                return Err(failed());
            }
        };
        let selectors = self.0.attestors.attest(&caller).await.map_err(|_| failed())?;
        Ok((caller, selectors))
    }

    /// Follows what `found` earns; each update becomes an answer, or the end of the stream.
    fn follow<T: Message + Default + 'static>(
        &self,
        method: &'static str,
        caller: Caller,
        found: BTreeSet<Selector>,
        answer: impl Fn(&Parts, &Update) -> Result<T, Status> + Send + Sync + 'static,
    ) -> BoxStream<'static, Result<T, Status>> {
        let subscription = self.0.cache.subscribe(&found);
        let follower = Follower { api: self.clone(), method, caller, found, subscription };
        unfold(Some((follower, answer)), |state| async move {
            let (mut follower, answer) = state?;
            match follower.next(&answer).await {
                Ok(message) => Some((Ok(message), Some((follower, answer)))),
                Err(status) => Some((Err(status), None)),
            }
        })
        .boxed()
    }

    fn no_identity(
        &self,
        method: &'static str,
        caller: &Caller,
        found: &BTreeSet<Selector>,
    ) -> Status {
        let process = caller.process();
        let shown = |selector: &&Selector| self.0.log_selectors.contains(selector.kind());
        let selectors: Vec<_> = found.iter().filter(shown).map(Selector::as_str).collect();
        let nearest = self.0.cache.nearest(found).map(|nearest| {
            let missing: Vec<_> = nearest.missing.iter().map(ToString::to_string).collect();
            let (id, entry) = (&nearest.entry.spiffe_id, &nearest.entry.id);
            format!("entry {entry} of {id} lacks {}", missing.join(", "))
        });
        tracing::error!(
            subsystem_name = "endpoints",
            service = "WorkloadAPI",
            method,
            pid = process.pid,
            uid = process.uid,
            registered = false,
            selectors = selectors.join(","),
            nearest_entry = nearest.unwrap_or_else(|| "no entry is authorized here".to_owned()),
            "No identity issued"
        );
        Status::permission_denied("no identity issued")
    }

    /// The own bundle for callers without identity, where the operator allows that.
    fn bundles_without_identity(&self, update: &Update) -> Option<Update> {
        self.0.allow_unauthenticated_verifiers.then(|| Update::of_own_bundle(&update.bundles.own))
    }
}

/// A stream to one caller.
struct Follower {
    api: WorkloadApi,
    method: &'static str,
    caller: Caller,
    found: BTreeSet<Selector>,
    subscription: Subscription,
}

impl Follower {
    async fn next<T>(
        &mut self,
        answer: &(impl Fn(&Parts, &Update) -> Result<T, Status> + Sync),
    ) -> Result<T, Status> {
        let update = self.subscription.next().await;
        // The process may have ended while its stream was idle, and its pid may be another's.
        self.caller.check().map_err(|_| Status::unavailable("workload attestation failed"))?;
        if !update.identities.is_empty() {
            return answer(&self.api.0, &update);
        }
        let is_for_bundles = self.method != "FetchX509SVID";
        match self.api.bundles_without_identity(&update).filter(|_| is_for_bundles) {
            Some(own) => answer(&self.api.0, &own),
            None => Err(self.api.no_identity(self.method, &self.caller, &self.found)),
        }
    }
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for WorkloadApi {
    type FetchX509SVIDStream = BoxStream<'static, Result<X509svidResponse, Status>>;
    type FetchX509BundlesStream = BoxStream<'static, Result<X509BundlesResponse, Status>>;
    type FetchJWTBundlesStream = BoxStream<'static, Result<JwtBundlesResponse, Status>>;
    type FetchWITSVIDStream = BoxStream<'static, Result<WitsvidResponse, Status>>;
    type FetchWITBundlesStream = BoxStream<'static, Result<WitBundlesResponse, Status>>;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        let (caller, found) = self.attest(&request).await?;
        let pid = caller.process().pid;
        let answers = self.follow("FetchX509SVID", caller, found, move |parts, update| {
            let now = parts.clock.now();
            for identity in &update.identities {
                let ttl = identity.svid.svid.expires_at.duration_since(now).as_secs();
                tracing::debug!(
                    subsystem_name = "endpoints",
                    service = "WorkloadAPI",
                    method = "FetchX509SVID",
                    pid,
                    registered = true,
                    spiffe_id = %identity.entry.spiffe_id,
                    ttl,
                    "Fetched X.509 SVID"
                );
            }
            shared(update.x509_svid_response())
        });
        Ok(Response::new(answers))
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        let (caller, found) = self.attest(&request).await?;
        let answers = self.follow("FetchX509Bundles", caller, found, |_, update| {
            shared(update.x509_bundles_response())
        });
        Ok(Response::new(without_repeats(answers)))
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        let (caller, found) = self.attest(&request).await?;
        let answers = self.follow("FetchJWTBundles", caller, found, |_, update| {
            shared(update.jwt_bundles_response())
        });
        Ok(Response::new(without_repeats(answers)))
    }

    async fn fetch_jwtsvid(
        &self,
        request: Request<JwtsvidRequest>,
    ) -> Result<Response<JwtsvidResponse>, Status> {
        check_header(&request)?;
        check_audience(&request.get_ref().audience)?;
        let wanted = match request.get_ref().spiffe_id.as_str() {
            "" => None,
            text => Some(SpiffeId::parse(text).map_err(|error| {
                Status::invalid_argument(format!("invalid requested SPIFFE ID: {error}"))
            })?),
        };
        let (caller, found) = self.attest(&request).await?;
        let mut entries = self.0.cache.matching(&found);
        entries.retain(|entry| wanted.as_ref().is_none_or(|wanted| entry.spiffe_id == *wanted));
        if entries.is_empty() {
            return Err(self.no_identity("FetchJWTSVID", &caller, &found));
        }
        let audience = request.into_inner().audience;
        let mut svids = Vec::with_capacity(entries.len());
        for entry in &entries {
            svids.push(self.fetch_one(&caller, entry, &audience).await?);
        }
        Ok(Response::new(JwtsvidResponse { svids }))
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        check_header(&request)?;
        if request.get_ref().audience.is_empty() {
            return Err(Status::invalid_argument("audience must be specified"));
        }
        if request.get_ref().svid.is_empty() {
            return Err(Status::invalid_argument("svid must be specified"));
        }
        let (_, found) = self.attest(&request).await?;
        let bundles = self.0.cache.bundles(&found);
        let bundle_of = |trust_domain: &TrustDomain| -> Option<Arc<Bundle>> {
            bundles.iter().find(|bundle| bundle.trust_domain == *trust_domain).cloned()
        };
        let ValidateJwtsvidRequest { audience, svid } = request.into_inner();
        let verified = jwt::verify(&svid, &audience, bundle_of, self.0.clock.now())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let mut claims = verified.claims;
        if verified.id.trust_domain() != self.0.trust_domain {
            let allowed = &self.0.allowed_foreign_jwt_claims;
            claims.retain(|name, _| {
                matches!(name.as_str(), "sub" | "exp" | "aud") || allowed.contains(name)
            });
        }
        let spiffe_id = verified.id.to_string();
        let claims = Some(to_struct(claims));
        Ok(Response::new(ValidateJwtsvidResponse { spiffe_id, claims }))
    }

    async fn fetch_witsvid(
        &self,
        request: Request<WitsvidRequest>,
    ) -> Result<Response<Self::FetchWITSVIDStream>, Status> {
        check_header(&request)?;
        Err(Status::unimplemented("fetching WIT-SVIDs is not implemented"))
    }

    async fn fetch_wit_bundles(
        &self,
        request: Request<WitBundlesRequest>,
    ) -> Result<Response<Self::FetchWITBundlesStream>, Status> {
        check_header(&request)?;
        Err(Status::unimplemented("fetching WIT bundles is not implemented"))
    }
}

impl WorkloadApi {
    async fn fetch_one(
        &self,
        caller: &Caller,
        entry: &Entry,
        audience: &[String],
    ) -> Result<Jwtsvid, Status> {
        let svid = self.0.jwt_svids.fetch(entry, audience).await.map_err(|error| {
            tracing::error!(
                subsystem_name = "endpoints",
                service = "WorkloadAPI",
                method = "FetchJWTSVID",
                spiffe_id = %entry.spiffe_id,
                error = %error,
                "Could not fetch JWT-SVID"
            );
            Status::unavailable(format!("could not fetch JWT-SVID: {error}"))
        })?;
        let ttl = svid.expires_at.duration_since(self.0.clock.now()).as_secs();
        tracing::debug!(
            subsystem_name = "endpoints",
            service = "WorkloadAPI",
            method = "FetchJWTSVID",
            pid = caller.process().pid,
            registered = true,
            spiffe_id = %entry.spiffe_id,
            ttl,
            "Fetched JWT SVID"
        );
        Ok(Jwtsvid {
            spiffe_id: entry.spiffe_id.to_string(),
            svid: svid.token.to_string(),
            hint: entry.hint.as_str().to_owned(),
        })
    }
}

/// Every call carries `workload.spiffe.io: true`, once and in this spelling, so that no browser or
/// proxy is tricked into making it.
fn check_header<T>(request: &Request<T>) -> Result<(), Status> {
    let mut values = request.metadata().get_all("workload.spiffe.io").iter();
    match (values.next(), values.next()) {
        (Some(value), None) if value == "true" => Ok(()),
        _ => Err(Status::invalid_argument("security header missing from request")),
    }
}

fn check_audience(audience: &[String]) -> Result<(), Status> {
    if audience.is_empty() {
        return Err(Status::invalid_argument("audience must be specified"));
    }
    if audience.iter().all(String::is_empty) {
        return Err(Status::invalid_argument("audience must be specified: every value is empty"));
    }
    if audience.len() > MAX_AUDIENCES {
        let text = format!("audience has {} values; at most {MAX_AUDIENCES}", audience.len());
        return Err(Status::invalid_argument(text));
    }
    if audience.iter().any(|value| value.len() > MAX_AUDIENCE_BYTES) {
        let text = format!("an audience is longer than {MAX_AUDIENCE_BYTES} bytes");
        return Err(Status::invalid_argument(text));
    }
    Ok(())
}

/// A message whose parts point into the encoded form that all callers share.
fn shared<T: Message + Default>(encoded: Bytes) -> Result<T, Status> {
    T::decode(encoded).map_err(|error| Status::internal(error.to_string()))
}

/// Leaves out a message that says what the one before it said.
fn without_repeats<T: PartialEq + Clone + Send + 'static>(
    answers: BoxStream<'static, Result<T, Status>>,
) -> BoxStream<'static, Result<T, Status>> {
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

fn to_struct(members: Map<String, Value>) -> Struct {
    Struct { fields: members.into_iter().map(|(name, value)| (name, to_value(value))).collect() }
}

fn to_value(value: Value) -> prost_types::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(value),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text),
        Value::Array(items) => {
            Kind::ListValue(ListValue { values: items.into_iter().map(to_value).collect() })
        }
        Value::Object(members) => Kind::StructValue(to_struct(members)),
    };
    prost_types::Value { kind: Some(kind) }
}
