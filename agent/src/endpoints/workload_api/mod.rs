//! The SPIFFE Workload API: what a workload asks of the agent on its node.
//!
//! # Source
//! SPIFFE Workload Endpoint; SPIFFE Workload API.

mod jwt;
mod refusal;
mod streams;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use spire_core::clock::Clock;
use spire_core::id::TrustDomain;
use spire_core::selector::Selector;
use spire_core::telemetry::health::{Health, HealthCheck};
use spire_core::telemetry::log::with_causes;
use spire_core::wire::workload::spiffe_workload_api_server::SpiffeWorkloadApi;
use spire_core::wire::workload::{
    JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, SECURITY_HEADER,
    ValidateJwtsvidRequest, ValidateJwtsvidResponse, WitBundlesRequest, WitBundlesResponse,
    WitsvidRequest, WitsvidResponse, X509BundlesRequest, X509BundlesResponse, X509svidRequest,
    X509svidResponse,
};
use tonic::{Request, Response, Status};

use super::rate_limit::{Limit, Method, RateLimits};
use super::unix::FoundCaller;
use crate::cache::{Cache, JwtSvids};
use crate::config::RateLimitsConfig;
use crate::workload::WorkloadAttestors;
use crate::workload::caller::Caller;
use streams::Stream;

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct WorkloadApi {
    parts: Arc<Parts>,
    rates: Arc<RateLimits>,
    diagnoses: Arc<Limit>,
}

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
    /// Types of selectors that are logged for a caller without identity; all where it is empty.
    pub log_selectors: BTreeSet<String>,
    /// How often workloads may call.
    pub ratelimit: RateLimitsConfig,
    /// The time.
    pub clock: Clock,
}

impl WorkloadApi {
    /// The service made of its parts.
    pub fn new(parts: Parts) -> Self {
        let rates = Arc::new(RateLimits::new(parts.ratelimit));
        Self { parts: Arc::new(parts), rates, diagnoses: Arc::new(Limit::per_second(1)) }
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
        let selectors = self.parts.attestors.attest(&caller).await.map_err(|_| failed())?;
        Ok((caller, selectors))
    }
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for WorkloadApi {
    type FetchX509SVIDStream = Stream<X509svidResponse>;
    type FetchX509BundlesStream = Stream<X509BundlesResponse>;
    type FetchJWTBundlesStream = Stream<JwtBundlesResponse>;
    type FetchWITSVIDStream = Stream<WitsvidResponse>;
    type FetchWITBundlesStream = Stream<WitBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        let (caller, found) = self.attest(&request).await?;
        self.rates.check(Method::FetchX509Svid, &caller, &found)?;
        Ok(Response::new(self.stream_x509_svids(caller, &found)))
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        let (caller, found) = self.attest(&request).await?;
        self.rates.check(Method::FetchX509Bundles, &caller, &found)?;
        Ok(Response::new(self.stream_x509_bundles(caller, &found)))
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        let (caller, found) = self.attest(&request).await?;
        self.rates.check(Method::FetchJwtBundles, &caller, &found)?;
        Ok(Response::new(self.stream_jwt_bundles(caller, &found)))
    }

    async fn fetch_jwtsvid(
        &self,
        request: Request<JwtsvidRequest>,
    ) -> Result<Response<JwtsvidResponse>, Status> {
        check_header(&request)?;
        jwt::check_audience(&request.get_ref().audience)?;
        let wanted = jwt::wanted_id(&request.get_ref().spiffe_id)?;
        let (caller, found) = self.attest(&request).await?;
        self.rates.check(Method::FetchJwtSvid, &caller, &found)?;
        let audience = request.into_inner().audience;
        self.fetch_jwt_svids(&caller, &found, wanted.as_ref(), &audience).await.map(Response::new)
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
        let ValidateJwtsvidRequest { audience, svid } = request.into_inner();
        self.validate(&found, &svid, &audience).map(Response::new)
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

/// Every call carries the header once, and `true` in this spelling.
fn check_header<T>(request: &Request<T>) -> Result<(), Status> {
    let mut values = request.metadata().get_all(SECURITY_HEADER).iter();
    match (values.next(), values.next()) {
        (Some(value), None) if value == "true" => Ok(()),
        _ => Err(Status::invalid_argument("security header missing from request")),
    }
}

/// The API works where a process can be attested: the agent itself is one. Whether that process
/// has an identity makes no difference.
#[async_trait]
impl HealthCheck for WorkloadApi {
    async fn check(&self) -> Health {
        let failed = |error: String| Health::bad("make_new_x509_err", error);
        match Caller::this_process() {
            Ok(caller) => match self.parts.attestors.attest(&caller).await {
                Ok(_) => Health::good(),
                Err(error) => failed(error.to_string()),
            },
            Err(error) => failed(with_causes(&error).to_string()),
        }
    }
}
