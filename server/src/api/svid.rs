//! The SVID service: what the authority signs for agents, operators and servers below this one.

use std::sync::Arc;
use std::time::Duration;

use spire_core::entry::{AdditionalAttributes, DnsName, EntryId};
use spire_core::id::{SpiffeId, TrustDomain};
use spire_core::limits::{MAX_AUDIENCE_BYTES, MAX_AUDIENCES};
use spire_core::svid::x509::CertificateRequest;
use spire_core::wire::convert;
use spire_core::wire::svid::svid_server::Svid;
use spire_core::wire::svid::*;
use spire_core::wire::types;
use tonic::{Request, Response, Status};

use super::call::Call;
use super::request::{Reply, certificate_request, no_wit_svids};
use super::status::{failed, invalid};
use crate::authority::{Authority, JwtRequest};
use crate::rate_limit::{Method, RateLimits};
use crate::registry::{Registry, Snapshot};

/// How SPIRE begins the refusal of a workload's certificate request.
const MALFORMED_CSR: &str = "malformed CSR";

/// The SVID service.
#[derive(Clone)]
pub struct SvidService {
    /// The trust domain that is served.
    pub trust_domain: TrustDomain,
    /// Which entries an agent may ask SVIDs for.
    pub registry: Arc<Registry>,
    /// What signs.
    pub authority: Arc<Authority>,
    /// How often an address may call.
    pub limits: Arc<RateLimits>,
}

#[tonic::async_trait]
impl Svid for SvidService {
    async fn mint_x509svid(
        &self,
        request: Request<MintX509svidRequest>,
    ) -> Reply<MintX509svidResponse> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        call.note(|fields| {
            fields.add_csr(&request.csr);
            fields.add_value("ttl", request.ttl);
        });
        let ttl = ttl(request.ttl)?;
        let csr = certificate_request(MALFORMED_CSR, &request.csr)?;
        let id = self.minted_id(&csr)?;
        let dns_names = csr.dns_names.iter().map(|name| name.parse::<DnsName>());
        let dns_names = dns_names.collect::<Result<Vec<_>, _>>();
        let dns_names = dns_names.map_err(|error| invalid("CSR DNS name is not valid", error))?;
        call.note(|fields| fields.add("spiffe_id", &id));
        let svid = self.authority.mint_x509(&csr, &id, &dns_names, ttl).await;
        let svid = svid.map_err(|error| failed("failed to sign X509-SVID", error))?;
        Ok(Response::new(MintX509svidResponse { svid: Some(convert::svid::x509(svid, "")) }))
    }

    async fn mint_jwtsvid(
        &self,
        request: Request<MintJwtsvidRequest>,
    ) -> Reply<MintJwtsvidResponse> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        call.note(|fields| {
            fields.add_wire_id("spiffe_id", request.id.as_ref());
            fields.add_list("audience", &request.audience);
            fields.add_value("ttl", request.ttl);
        });
        let id = convert::workload_id(&self.trust_domain, request.id.as_ref())
            .map_err(|error| invalid("invalid SPIFFE ID", error))?;
        let ttl = ttl(request.ttl)?;
        let svid =
            self.sign_jwt(JwtRequest { id: &id, audience: &request.audience, ttl, with_id: false });
        Ok(Response::new(MintJwtsvidResponse { svid: Some(svid.await?) }))
    }

    async fn batch_new_x509svid(
        &self,
        request: Request<BatchNewX509svidRequest>,
    ) -> Reply<BatchNewX509svidResponse> {
        let call = Call::of(&request)?;
        let params = request.into_inner().params;
        if params.is_empty() {
            return Err(Status::invalid_argument("missing parameters"));
        }
        let cost = u32::try_from(params.len()).unwrap_or(u32::MAX);
        self.wait(&call, Method::NewX509Svid, cost).await?;
        let agent_id = call.own_id()?;
        let snapshot = self.registry.snapshot();
        let mut results = Vec::with_capacity(params.len());
        for params in params {
            let signed = self.new_x509(&agent_id, &snapshot, &params).await;
            let (status, svid) = match signed {
                Ok(svid) => (convert::ok(), Some(svid)),
                Err(status) => ((&status).into(), None),
            };
            call.item(&status, |fields| {
                fields.add("entry_id", &params.entry_id);
                fields.add_csr(&params.csr);
                let id = svid.as_ref().and_then(|svid| svid.id.as_ref());
                fields.add_wire_id("spiffe_id", id);
                if let Some(svid) = &svid {
                    fields.add_value("expires_at", svid.expires_at);
                }
            });
            let status = Some(status);
            results.push(batch_new_x509svid_response::Result { status, svid });
            tokio::task::consume_budget().await; // a large batch must not hold a thread for itself
        }
        Ok(Response::new(BatchNewX509svidResponse { results }))
    }

    async fn new_jwtsvid(&self, request: Request<NewJwtsvidRequest>) -> Reply<NewJwtsvidResponse> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        call.note(|fields| {
            fields.add("entry_id", &request.entry_id);
            fields.add_list("audience", &request.audience);
        });
        self.wait(&call, Method::NewJwtSvid, 1).await?;
        let agent_id = call.own_id()?;
        let snapshot = self.registry.snapshot();
        let id = request.entry_id.parse::<EntryId>().ok();
        let entry = id.and_then(|id| snapshot.authorized_entry(&agent_id, &id));
        let entry = entry.ok_or_else(not_authorized)?.to_entry();
        call.note(|fields| fields.add("spiffe_id", &entry.spiffe_id));
        let AdditionalAttributes { jwt_svid_include_jti, .. } =
            entry.attributes.unwrap_or_default();
        let svid = self.sign_jwt(JwtRequest {
            id: &entry.spiffe_id,
            audience: &request.audience,
            ttl: Some(Duration::from_secs(entry.jwt_svid_ttl.into())),
            with_id: jwt_svid_include_jti,
        });
        Ok(Response::new(NewJwtsvidResponse { svid: Some(svid.await?) }))
    }

    async fn new_downstream_x509ca(
        &self,
        request: Request<NewDownstreamX509caRequest>,
    ) -> Reply<NewDownstreamX509caResponse> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        call.note(|fields| {
            fields.add_csr(&request.csr);
            fields.add("trust_domain_id", self.trust_domain.id());
        });
        self.wait(&call, Method::NewDownstreamCa, 1).await?;
        let csr = certificate_request(MALFORMED_CSR, &request.csr)?;
        // Only a preference: what makes no sense is none.
        let ttl = u64::try_from(request.preferred_ttl).ok().map(Duration::from_secs);
        let chain = self.authority.sign_downstream(&csr, ttl).await;
        let ca_cert_chain =
            chain.map_err(|error| failed("failed to sign downstream X.509 CA", error))?;
        let bundle = self.authority.bundle().borrow().clone();
        let roots = bundle.x509_authorities.iter();
        let x509_authorities = roots.map(|authority| authority.certificate.clone()).collect();
        Ok(Response::new(NewDownstreamX509caResponse { ca_cert_chain, x509_authorities }))
    }

    async fn mint_witsvid(&self, _: Request<MintWitsvidRequest>) -> Reply<MintWitsvidResponse> {
        Err(no_wit_svids())
    }

    async fn batch_new_witsvid(
        &self,
        _: Request<BatchNewWitsvidRequest>,
    ) -> Reply<BatchNewWitsvidResponse> {
        Err(no_wit_svids())
    }
}

impl SvidService {
    /// One item of a batch. The ID and the DNS names come from the entry; those in the request
    /// count for nothing.
    async fn new_x509(
        &self,
        agent_id: &SpiffeId,
        snapshot: &Snapshot,
        params: &NewX509svidParams,
    ) -> Result<types::X509svid, Status> {
        if params.entry_id.is_empty() {
            return Err(Status::invalid_argument("missing entry ID"));
        }
        if params.csr.is_empty() {
            return Err(Status::invalid_argument("missing CSR"));
        }
        let id = params.entry_id.parse::<EntryId>().ok();
        let entry = id.and_then(|id| snapshot.authorized_entry(agent_id, &id));
        let entry = entry.ok_or_else(not_authorized)?.to_entry();
        let csr = certificate_request(MALFORMED_CSR, &params.csr)?;
        let svid = self.authority.sign_workload(&csr, &entry).await;
        let svid = svid.map_err(|error| failed("failed to sign X509-SVID", error))?;
        Ok(convert::svid::x509(svid, ""))
    }

    async fn sign_jwt(&self, request: JwtRequest<'_>) -> Result<types::Jwtsvid, Status> {
        if request.audience.is_empty() {
            return Err(Status::invalid_argument("at least one audience is required"));
        }
        if request.audience.len() > MAX_AUDIENCES {
            let count = request.audience.len();
            return Err(Status::invalid_argument(format!(
                "audience has {count} items, but a token may have at most {MAX_AUDIENCES}"
            )));
        }
        if let Some(long) = request.audience.iter().find(|one| one.len() > MAX_AUDIENCE_BYTES) {
            let bytes = long.len();
            return Err(Status::invalid_argument(format!(
                "an audience has {bytes} bytes, but may have at most {MAX_AUDIENCE_BYTES}"
            )));
        }
        let svid = self.authority.sign_jwt(request).await;
        let svid = svid.map_err(|error| failed("failed to sign JWT-SVID", error))?;
        Ok(convert::svid::jwt(svid.token, &svid.id, svid.issued_at, svid.expires_at, ""))
    }

    /// The only URI of a request by an operator, which must be a workload's ID.
    fn minted_id(&self, csr: &CertificateRequest) -> Result<SpiffeId, Status> {
        let uri = match csr.uris.as_slice() {
            [] => return Err(Status::invalid_argument("CSR URI SAN is required")),
            [uri] => uri,
            _ => return Err(Status::invalid_argument("only one URI SAN is expected")),
        };
        let id = SpiffeId::parse(uri);
        let id = id.map_err(|error| invalid("CSR URI SAN is invalid", error))?;
        id.workload_of(&self.trust_domain).map_err(|error| invalid("CSR URI SAN is invalid", error))
    }

    async fn wait(&self, call: &Call, method: Method, cost: u32) -> Result<(), Status> {
        Ok(self.limits.wait(method, call.ip(), cost).await?)
    }
}

fn not_authorized() -> Status {
    Status::not_found("entry not found or not authorized")
}

/// A lifetime that an operator asks for; 0 leaves it to the server.
fn ttl(seconds: i32) -> Result<Option<Duration>, Status> {
    let seconds = u64::try_from(seconds).map_err(|_| {
        Status::invalid_argument(format!("ttl must not be negative, but is {seconds}"))
    })?;
    Ok((seconds > 0).then(|| Duration::from_secs(seconds)))
}
