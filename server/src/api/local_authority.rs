//! The local-authority service: operators turn this server's authorities out of turn, and give one
//! up whose key may be in wrong hands.

use std::sync::Arc;

use spire_core::wire::local_authority::local_authority_server::LocalAuthority;
use spire_core::wire::local_authority::*;
use tonic::{Request, Response, Status};

use super::call::Call;
use super::request::{Reply, no_wit_svids};
use super::status::failed;
use crate::authority::{self, Authority, Kind, RotationError, SlotStates};

/// The local-authority service.
#[derive(Clone)]
pub struct LocalAuthorityService {
    /// Whose authorities these are.
    pub authority: Arc<Authority>,
}

#[tonic::async_trait]
impl LocalAuthority for LocalAuthorityService {
    async fn get_jwt_authority_state(
        &self,
        _: Request<GetJwtAuthorityStateRequest>,
    ) -> Reply<GetJwtAuthorityStateResponse> {
        let [active, prepared, old] = self.states(Kind::Jwt)?;
        Ok(Response::new(GetJwtAuthorityStateResponse { active, prepared, old }))
    }

    async fn prepare_jwt_authority(
        &self,
        _: Request<PrepareJwtAuthorityRequest>,
    ) -> Reply<PrepareJwtAuthorityResponse> {
        let prepared = self.authority.prepare(Kind::Jwt).await;
        let prepared =
            prepared.map_err(|error| refusal("failed to prepare JWT authority", error))?;
        let prepared_authority = Some(state(&prepared));
        Ok(Response::new(PrepareJwtAuthorityResponse { prepared_authority }))
    }

    async fn activate_jwt_authority(
        &self,
        request: Request<ActivateJwtAuthorityRequest>,
    ) -> Reply<ActivateJwtAuthorityResponse> {
        let id = named(&request, |request| &request.authority_id)?;
        let activated = self.authority.activate(Kind::Jwt, &id).await;
        let activated =
            activated.map_err(|error| refusal("failed to activate JWT authority", error))?;
        let activated_authority = Some(state(&activated));
        Ok(Response::new(ActivateJwtAuthorityResponse { activated_authority }))
    }

    async fn taint_jwt_authority(
        &self,
        request: Request<TaintJwtAuthorityRequest>,
    ) -> Reply<TaintJwtAuthorityResponse> {
        let id = named(&request, |request| &request.authority_id)?;
        let tainted = self.authority.taint(Kind::Jwt, &id).await;
        tainted.map_err(|error| refusal("failed to taint JWT authority", error))?;
        let tainted_authority = Some(given_up(id));
        Ok(Response::new(TaintJwtAuthorityResponse { tainted_authority }))
    }

    async fn revoke_jwt_authority(
        &self,
        request: Request<RevokeJwtAuthorityRequest>,
    ) -> Reply<RevokeJwtAuthorityResponse> {
        let id = named(&request, |request| &request.authority_id)?;
        let revoked = self.authority.revoke(Kind::Jwt, &id).await;
        revoked.map_err(|error| refusal("failed to revoke JWT authority", error))?;
        let revoked_authority = Some(given_up(id));
        Ok(Response::new(RevokeJwtAuthorityResponse { revoked_authority }))
    }

    async fn get_x509_authority_state(
        &self,
        _: Request<GetX509AuthorityStateRequest>,
    ) -> Reply<GetX509AuthorityStateResponse> {
        let [active, prepared, old] = self.states(Kind::X509)?;
        Ok(Response::new(GetX509AuthorityStateResponse { active, prepared, old }))
    }

    async fn prepare_x509_authority(
        &self,
        _: Request<PrepareX509AuthorityRequest>,
    ) -> Reply<PrepareX509AuthorityResponse> {
        let prepared = self.authority.prepare(Kind::X509).await;
        let prepared =
            prepared.map_err(|error| refusal("failed to prepare X.509 authority", error))?;
        let prepared_authority = Some(state(&prepared));
        Ok(Response::new(PrepareX509AuthorityResponse { prepared_authority }))
    }

    async fn activate_x509_authority(
        &self,
        request: Request<ActivateX509AuthorityRequest>,
    ) -> Reply<ActivateX509AuthorityResponse> {
        let id = named(&request, |request| &request.authority_id)?;
        let activated = self.authority.activate(Kind::X509, &id).await;
        let activated =
            activated.map_err(|error| refusal("failed to activate X.509 authority", error))?;
        let activated_authority = Some(state(&activated));
        Ok(Response::new(ActivateX509AuthorityResponse { activated_authority }))
    }

    async fn taint_x509_authority(
        &self,
        request: Request<TaintX509AuthorityRequest>,
    ) -> Reply<TaintX509AuthorityResponse> {
        let id = named(&request, |request| &request.authority_id)?;
        let tainted = self.authority.taint(Kind::X509, &id).await;
        let tainted = tainted.map_err(|error| refusal("failed to taint X.509 authority", error))?;
        let tainted_authority = Some(state(&tainted));
        Ok(Response::new(TaintX509AuthorityResponse { tainted_authority }))
    }

    async fn taint_x509_upstream_authority(
        &self,
        request: Request<TaintX509UpstreamAuthorityRequest>,
    ) -> Reply<TaintX509UpstreamAuthorityResponse> {
        let id = named_upstream(&request, |request| &request.subject_key_id)?;
        let tainted = self.authority.taint_upstream(&id).await;
        tainted.map_err(|error| refusal("failed to taint X.509 upstream authority", error))?;
        let upstream_authority_subject_key_id = id;
        Ok(Response::new(TaintX509UpstreamAuthorityResponse { upstream_authority_subject_key_id }))
    }

    async fn revoke_x509_authority(
        &self,
        request: Request<RevokeX509AuthorityRequest>,
    ) -> Reply<RevokeX509AuthorityResponse> {
        let id = named(&request, |request| &request.authority_id)?;
        let revoked = self.authority.revoke(Kind::X509, &id).await;
        revoked.map_err(|error| refusal("failed to revoke X.509 authority", error))?;
        let revoked_authority = Some(given_up(id));
        Ok(Response::new(RevokeX509AuthorityResponse { revoked_authority }))
    }

    async fn revoke_x509_upstream_authority(
        &self,
        request: Request<RevokeX509UpstreamAuthorityRequest>,
    ) -> Reply<RevokeX509UpstreamAuthorityResponse> {
        let id = named_upstream(&request, |request| &request.subject_key_id)?;
        let revoked = self.authority.revoke_upstream(&id).await;
        revoked.map_err(|error| refusal("failed to revoke X.509 upstream authority", error))?;
        let upstream_authority_subject_key_id = id;
        Ok(Response::new(RevokeX509UpstreamAuthorityResponse { upstream_authority_subject_key_id }))
    }

    async fn get_wit_authority_state(
        &self,
        _: Request<GetWitAuthorityStateRequest>,
    ) -> Reply<GetWitAuthorityStateResponse> {
        Err(no_wit_svids())
    }

    async fn prepare_wit_authority(
        &self,
        _: Request<PrepareWitAuthorityRequest>,
    ) -> Reply<PrepareWitAuthorityResponse> {
        Err(no_wit_svids())
    }

    async fn activate_wit_authority(
        &self,
        _: Request<ActivateWitAuthorityRequest>,
    ) -> Reply<ActivateWitAuthorityResponse> {
        Err(no_wit_svids())
    }

    async fn taint_wit_authority(
        &self,
        _: Request<TaintWitAuthorityRequest>,
    ) -> Reply<TaintWitAuthorityResponse> {
        Err(no_wit_svids())
    }

    async fn revoke_wit_authority(
        &self,
        _: Request<RevokeWitAuthorityRequest>,
    ) -> Reply<RevokeWitAuthorityResponse> {
        Err(no_wit_svids())
    }
}

impl LocalAuthorityService {
    /// Active, prepared and old.
    fn states(&self, kind: Kind) -> Result<[Option<AuthorityState>; 3], Status> {
        let states = self.authority.states(kind);
        let SlotStates { active, prepared, old } = &*states;
        if active.is_none() && kind == Kind::X509 {
            return Err(Status::unavailable("server is initializing"));
        }
        Ok([active, prepared, old].map(|held| held.as_ref().map(state)))
    }
}

fn state(state: &authority::AuthorityState) -> AuthorityState {
    AuthorityState {
        authority_id: state.authority_id.clone(),
        expires_at: state.expires_at.as_second(),
        upstream_authority_subject_key_id: state.upstream_authority_id.clone().unwrap_or_default(),
    }
}

/// An authority that was given up, of which SPIRE's answers do not tell when it ends.
fn given_up(authority_id: String) -> AuthorityState {
    AuthorityState { authority_id, ..AuthorityState::default() }
}

/// The authority that a request names.
fn named<T>(request: &Request<T>, id: impl Fn(&T) -> &String) -> Result<String, Status> {
    let (call, id) = (Call::of(request)?, id(request.get_ref()).clone());
    call.note(|fields| fields.add("local_authority_id", &id));
    if id.is_empty() {
        return Err(Status::invalid_argument("no authority ID provided"));
    }
    Ok(id)
}

/// The root of an upstream that a request names.
fn named_upstream<T>(request: &Request<T>, id: impl Fn(&T) -> &String) -> Result<String, Status> {
    let (call, id) = (Call::of(request)?, id(request.get_ref()).clone());
    call.note(|fields| fields.add("subject_key_id", &id));
    if id.is_empty() {
        return Err(Status::invalid_argument("no subject key ID provided"));
    }
    Ok(id)
}

/// What was asked does not fit, which says all, or it failed.
fn refusal(what: &str, error: RotationError) -> Status {
    match error {
        RotationError::UnexpectedId
        | RotationError::NotPrepared
        | RotationError::Unfit(_)
        | RotationError::OtherSort(_) => error.into(),
        error => failed(what, error),
    }
}
