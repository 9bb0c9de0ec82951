//! The bundle service: the trust domain's own bundle, and those of the domains it federates with.

use std::sync::Arc;

use spire_core::bundle::Bundle as StoredBundle;
use spire_core::id::TrustDomain;
use spire_core::wire::bundle::batch_delete_federated_bundle_request::Mode;
use spire_core::wire::bundle::bundle_server::Bundle;
use spire_core::wire::bundle::*;
use spire_core::wire::convert::{self, bundle as wire_bundle};
use spire_core::wire::types::{self, BundleMask};
use tonic::{Request, Response, Status};

use super::audit::Fields;
use super::call::Call;
use super::listing;
use super::request::{Reply, no_wit_svids};
use super::status::{failed, invalid};
use crate::authority::Authority;
use crate::rate_limit::{Method, RateLimits};
use crate::store::{DeleteMode, Store, StoreError};

/// The bundle service.
#[derive(Clone)]
pub struct BundleService {
    /// The trust domain that is served.
    pub trust_domain: TrustDomain,
    /// Where bundles are kept.
    pub store: Store,
    /// Has the trust domain's own bundle in memory.
    pub authority: Arc<Authority>,
    /// How often an address may call.
    pub limits: Arc<RateLimits>,
}

#[tonic::async_trait]
impl Bundle for BundleService {
    async fn count_bundles(&self, _: Request<CountBundlesRequest>) -> Reply<CountBundlesResponse> {
        let count = self.store.count_bundles().await;
        let count = count.map_err(|error| failed("failed to count bundles", error))?;
        Ok(Response::new(CountBundlesResponse { count: listing::count(count) }))
    }

    async fn get_bundle(&self, request: Request<GetBundleRequest>) -> Reply<types::Bundle> {
        let mask = request.into_inner().output_mask;
        let bundle = self.authority.bundle().borrow().clone();
        Ok(Response::new(wire_bundle::sent(&bundle, mask.as_ref())))
    }

    async fn append_bundle(&self, request: Request<AppendBundleRequest>) -> Reply<types::Bundle> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        call.note(|fields| {
            fields.add("trust_domain_id", self.trust_domain.id());
            fields.add_authorities(&request.x509_authorities, &request.jwt_authorities);
        });
        if request.x509_authorities.is_empty() && request.jwt_authorities.is_empty() {
            return Err(Status::invalid_argument("no authorities to append"));
        }
        let x509 = wire_bundle::x509_authorities(&request.x509_authorities)
            .map_err(|error| invalid("failed to convert X.509 authority", error))?;
        let jwt = wire_bundle::jwt_authorities(&request.jwt_authorities)
            .map_err(|error| invalid("failed to convert JWT authority", error))?;
        let bundle = self.store.append_to_bundle(self.trust_domain.clone(), x509, jwt).await;
        let bundle = bundle.map_err(|error| failed("failed to append bundle", error))?;
        Ok(Response::new(wire_bundle::sent(&bundle, request.output_mask.as_ref())))
    }

    async fn publish_jwt_authority(
        &self,
        request: Request<PublishJwtAuthorityRequest>,
    ) -> Reply<PublishJwtAuthorityResponse> {
        let call = Call::of(&request)?;
        let key = request.into_inner().jwt_authority;
        call.note(|fields| fields.add_authorities(&[], key.as_slice()));
        self.limits.wait(Method::PublishJwtAuthority, call.ip(), 1).await?;
        let keys = wire_bundle::jwt_authorities(key.as_slice());
        let keys = keys.map_err(|error| invalid("invalid JWT authority", error))?;
        let key = keys.into_iter().next();
        let key = key.ok_or_else(|| Status::invalid_argument("missing JWT authority"))?;
        let keys = self.authority.publish_jwt_key(key).await;
        let keys = keys.map_err(|error| failed("failed to publish JWT key", error))?;
        let jwt_authorities = keys.iter().map(Into::into).collect();
        Ok(Response::new(PublishJwtAuthorityResponse { jwt_authorities }))
    }

    async fn publish_wit_authority(
        &self,
        _: Request<PublishWitAuthorityRequest>,
    ) -> Reply<PublishWitAuthorityResponse> {
        Err(no_wit_svids())
    }

    async fn list_federated_bundles(
        &self,
        request: Request<ListFederatedBundlesRequest>,
    ) -> Reply<ListFederatedBundlesResponse> {
        let request = request.into_inner();
        let page = listing::page(request.page_size, &request.page_token)?;
        let listed = self.store.list_bundles(Some(&self.trust_domain), page).await;
        let listed = listed.map_err(|error| failed("failed to list bundles", error))?;
        let mask = request.output_mask.as_ref();
        Ok(Response::new(ListFederatedBundlesResponse {
            bundles: listed.items.iter().map(|bundle| wire_bundle::sent(bundle, mask)).collect(),
            next_page_token: listing::next_page_token(request.page_size, listed.next)?,
        }))
    }

    async fn get_federated_bundle(
        &self,
        request: Request<GetFederatedBundleRequest>,
    ) -> Reply<types::Bundle> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        call.note(|fields| fields.add("trust_domain_id", &request.trust_domain));
        let trust_domain = self.foreign(&request.trust_domain, "getting a federated bundle")?;
        let bundle = self.store.bundle(&trust_domain).await;
        let bundle = bundle.map_err(|error| failed("failed to fetch bundle", error))?;
        let bundle = bundle.ok_or_else(|| Status::not_found("bundle not found"))?;
        Ok(Response::new(wire_bundle::sent(&bundle, request.output_mask.as_ref())))
    }

    async fn batch_create_federated_bundle(
        &self,
        request: Request<BatchCreateFederatedBundleRequest>,
    ) -> Reply<BatchCreateFederatedBundleResponse> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let mut results = Vec::with_capacity(request.bundle.len());
        for wire in &request.bundle {
            let outcome = self.create(wire).await;
            let (status, bundle) = item(&call, wire, outcome, request.output_mask.as_ref());
            results.push(batch_create_federated_bundle_response::Result { status, bundle });
        }
        Ok(Response::new(BatchCreateFederatedBundleResponse { results }))
    }

    async fn batch_update_federated_bundle(
        &self,
        request: Request<BatchUpdateFederatedBundleRequest>,
    ) -> Reply<BatchUpdateFederatedBundleResponse> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let mask = request.input_mask.unwrap_or(wire_bundle::ALL_FIELDS);
        let mut results = Vec::with_capacity(request.bundle.len());
        for wire in &request.bundle {
            let outcome = self.update(wire, &mask).await;
            let (status, bundle) = item(&call, wire, outcome, request.output_mask.as_ref());
            results.push(batch_update_federated_bundle_response::Result { status, bundle });
        }
        Ok(Response::new(BatchUpdateFederatedBundleResponse { results }))
    }

    async fn batch_set_federated_bundle(
        &self,
        request: Request<BatchSetFederatedBundleRequest>,
    ) -> Reply<BatchSetFederatedBundleResponse> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let mut results = Vec::with_capacity(request.bundle.len());
        for wire in &request.bundle {
            let outcome = self.set(wire).await;
            let (status, bundle) = item(&call, wire, outcome, request.output_mask.as_ref());
            results.push(batch_set_federated_bundle_response::Result { status, bundle });
        }
        Ok(Response::new(BatchSetFederatedBundleResponse { results }))
    }

    async fn batch_delete_federated_bundle(
        &self,
        request: Request<BatchDeleteFederatedBundleRequest>,
    ) -> Reply<BatchDeleteFederatedBundleResponse> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let mode = Mode::try_from(request.mode);
        let mode = mode.map_err(|error| invalid("failed to parse deletion mode", error))?;
        let mut results = Vec::with_capacity(request.trust_domains.len());
        for trust_domain in request.trust_domains {
            let status = match self.delete(&trust_domain, mode).await {
                Ok(()) => convert::ok(),
                Err(status) => (&status).into(),
            };
            call.item(&status, |fields| {
                fields.add("trust_domain_id", &trust_domain);
                fields.add("mode", mode.as_str_name());
            });
            let status = Some(status);
            results.push(batch_delete_federated_bundle_response::Result { status, trust_domain });
        }
        Ok(Response::new(BatchDeleteFederatedBundleResponse { results }))
    }
}

impl BundleService {
    async fn create(&self, wire: &types::Bundle) -> Result<StoredBundle, Status> {
        let bundle = self.read(wire, "creating a federated bundle")?;
        match self.store.create_bundle(bundle.clone()).await {
            Ok(()) => Ok(bundle),
            Err(StoreError::AlreadyExists(_)) => {
                Err(Status::already_exists("bundle already exists"))
            }
            Err(error) => Err(failed("unable to create bundle", error)),
        }
    }

    async fn update(
        &self,
        wire: &types::Bundle,
        mask: &BundleMask,
    ) -> Result<StoredBundle, Status> {
        let wanted = self.read(wire, "updating a federated bundle")?;
        let (trust_domain, mask) = (wanted.trust_domain.clone(), *mask);
        let edited = self.store.edit_bundle(trust_domain, move |bundle| {
            if mask.x509_authorities {
                bundle.x509_authorities.clone_from(&wanted.x509_authorities);
            }
            if mask.jwt_authorities {
                bundle.jwt_authorities.clone_from(&wanted.jwt_authorities);
            }
            if mask.refresh_hint {
                bundle.refresh_hint = wanted.refresh_hint;
            }
            if mask.sequence_number {
                bundle.sequence_number = wanted.sequence_number;
            }
            Ok(())
        });
        edited.await.map_err(|error| match error {
            StoreError::NotFound => Status::not_found("bundle not found"),
            error => failed("failed to update bundle", error),
        })
    }

    async fn set(&self, wire: &types::Bundle) -> Result<StoredBundle, Status> {
        let bundle = self.read(wire, "setting a federated bundle")?;
        let stored = self.store.set_bundle(bundle.clone()).await;
        stored.map(|()| bundle).map_err(|error| failed("failed to set bundle", error))
    }

    async fn delete(&self, trust_domain: &str, mode: Mode) -> Result<(), Status> {
        let trust_domain = TrustDomain::parse(trust_domain)
            .map_err(|error| invalid("trust domain argument is not valid", error))?;
        if trust_domain == self.trust_domain {
            let sentence = "removing the bundle for the server trust domain is not allowed";
            return Err(Status::invalid_argument(sentence));
        }
        let mode = match mode {
            Mode::Restrict => DeleteMode::Restrict,
            Mode::Delete => DeleteMode::Delete,
            Mode::Dissociate => DeleteMode::Dissociate,
        };
        self.store.delete_bundle(trust_domain, mode).await.map_err(|error| match error {
            StoreError::NotFound => Status::not_found("bundle not found"),
            // Scripts know this one by the name of SPIRE's datastore.
            StoreError::Refused(why) => Status::failed_precondition(format!(
                "failed to delete federated bundle: datastore-sql: {why}"
            )),
            error => failed("failed to delete federated bundle", error),
        })
    }

    fn read(&self, wire: &types::Bundle, doing: &str) -> Result<StoredBundle, Status> {
        self.foreign(&wire.trust_domain, doing)?;
        wire_bundle::bundle(wire).map_err(|error| invalid("failed to convert bundle", error))
    }

    /// Reads a trust domain, which must be another than the server's own.
    fn foreign(&self, trust_domain: &str, doing: &str) -> Result<TrustDomain, Status> {
        let trust_domain = TrustDomain::parse(trust_domain)
            .map_err(|error| invalid("trust domain argument is not valid", error))?;
        if trust_domain == self.trust_domain {
            return Err(Status::invalid_argument(format!(
                "{doing} for the server's own trust domain is not allowed"
            )));
        }
        Ok(trust_domain)
    }
}

/// The result of an item of a batch, and its lines in the logs.
fn item(
    call: &Call,
    wire: &types::Bundle,
    outcome: Result<StoredBundle, Status>,
    mask: Option<&BundleMask>,
) -> (Option<types::Status>, Option<types::Bundle>) {
    let (status, bundle) = match outcome {
        Ok(bundle) => (convert::ok(), Some(wire_bundle::sent(&bundle, mask))),
        Err(status) => ((&status).into(), None),
    };
    call.item(&status, |fields| note(wire, fields));
    (Some(status), bundle)
}

fn note(wire: &types::Bundle, fields: &mut Fields) {
    fields.add("trust_domain_id", &wire.trust_domain);
    fields.add_value("refresh_hint", wire.refresh_hint);
    fields.add_value("sequence_number", wire.sequence_number);
    fields.add_authorities(&wire.x509_authorities, &wire.jwt_authorities);
}
