//! What every request passes before its handler runs: the policy. What failed is logged here, once
//! for all services.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use spire_core::grpc::{self, GrpcService};
use spire_core::limits::{MAX_ATTESTATION_BYTES, MAX_UNPROVEN_REQUEST_BYTES};
use spire_core::wire::convert::denial::Reason;
use tonic::Status;
use tonic::body::Body;
use tower::Service;

use super::audit::{self, Outcome};
use super::call::Call;
use crate::caller::Caller;
use crate::policy::{self, Denied, Policy, RULES};

/// Lets through what the policy allows, with a [`Call`] in the request's extensions. Listeners
/// have put a [`Caller`] there.
#[derive(Clone)]
pub struct Gate<S> {
    services: S,
    policy: Arc<Policy>,
    audited: bool,
}

impl<S: GrpcService> Gate<S> {
    /// A gate before `services`. `audited` is `audit_log_enabled`.
    pub fn new(services: S, policy: Arc<Policy>, audited: bool) -> Self {
        Self { services, policy, audited }
    }
}

impl<S: GrpcService> Service<http::Request<Body>> for Gate<S> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.services.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        // The clone has not been polled for readiness, so the ready one goes and the clone stays.
        let clone = self.services.clone();
        let services = std::mem::replace(&mut self.services, clone);
        Box::pin(pass(services, Arc::clone(&self.policy), self.audited, request))
    }
}

async fn pass<S: GrpcService>(
    mut services: S,
    policy: Arc<Policy>,
    audited: bool,
    mut request: http::Request<Body>,
) -> Result<http::Response<Body>, Infallible> {
    let Some(caller) = request.extensions().get::<Caller>().cloned() else {
        return Ok(Status::internal("the listener did not say who calls").into_http());
    };
    let rule = match policy::rule(request.uri().path()) {
        Some(rule) if caller.is_local() || !rule.is_local_only() => rule,
        _ => return Ok(unknown(request.uri().path()).into_http()),
    };
    let grant = match policy.decide(rule, &caller).await {
        Ok(grant) => grant,
        Err(denied) => {
            log_refused_agent(&caller, &denied);
            let status = Status::from(denied);
            let outcome = Outcome::Failed(status.code(), status.message());
            Call::new(caller, rule, None, audited).end(&outcome);
            return Ok(status.into_http());
        }
    };
    if !caller.is_local() && caller.svid().is_none() {
        request = grpc::bounded(request, limit_for_strangers(rule));
    }
    let call = Call::new(caller, rule, Some(grant), audited);
    request.extensions_mut().insert(call.clone());
    let response = services.call(request).await?;
    match failure(&response) {
        Some(status) => call.end(&Outcome::Failed(status.code(), status.message())),
        None => {
            audit::log_success(&call);
            call.end(&Outcome::Done);
        }
    }
    Ok(response)
}

/// What a caller without certificate may send.
fn limit_for_strangers(rule: &policy::Rule) -> usize {
    match rule.method {
        "AttestAgent" => MAX_ATTESTATION_BYTES,
        _ => MAX_UNPROVEN_REQUEST_BYTES,
    }
}

/// The status of a call that failed before its answer began.
fn failure(response: &http::Response<Body>) -> Option<Status> {
    let code = response.headers().get(Status::GRPC_STATUS)?;
    if code.as_bytes() == b"0" {
        return None;
    }
    Status::from_header_map(response.headers())
}

/// The status for a path that leads nowhere, in the words of gRPC.
fn unknown(path: &str) -> Status {
    let (service, method) = path.strip_prefix('/').and_then(|path| path.split_once('/')).unzip();
    let (service, method) = (service.unwrap_or_default(), method.unwrap_or_default());
    let exists = |rule: &policy::Rule| rule.service == service && !rule.is_local_only();
    if RULES.iter().any(exists) {
        return Status::unimplemented(format!("unknown method {method} for service {service}"));
    }
    Status::unimplemented(format!("unknown service {service}"))
}

/// The lines that runbooks match.
fn log_refused_agent(caller: &Caller, denied: &Denied) {
    let (Denied::Agent { reason, .. }, Some(id)) = (denied, caller.id()) else { return };
    let message = match reason {
        Reason::AgentExpired => "Agent SVID is expired",
        Reason::AgentNotAttested => "Agent is not attested",
        Reason::AgentNotActive => "Agent SVID is not active",
        Reason::AgentBanned => "Agent is banned",
        Reason::AgentMustReattest | Reason::Unknown => return,
    };
    tracing::error!(
        subsystem_name = "api",
        caller_addr = caller.address().map(tracing::field::display),
        caller_id = format!("{:?}", id.as_str()),
        "{message}"
    );
}
