//! JWT-SVIDs: fetched for a caller's identities, and validated for it.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::stream::{StreamExt, TryStreamExt, iter};
use prost_types::value::Kind;
use prost_types::{ListValue, Struct};
use serde_json::{Map, Value};
use spire_core::bundle::Bundle;
use spire_core::entry::Entry;
use spire_core::id::{SpiffeId, TrustDomain};
use spire_core::limits::{MAX_AUDIENCE_BYTES, MAX_AUDIENCES};
use spire_core::selector::Selector;
use spire_core::svid::jwt;
use spire_core::wire::workload::{Jwtsvid, JwtsvidResponse, ValidateJwtsvidResponse};
use tonic::Status;

use super::super::rate_limit::Method;
use super::WorkloadApi;
use crate::workload::caller::Caller;

/// Tokens of one call that are asked of the server at a time.
const PARALLEL: usize = 8;

impl WorkloadApi {
    /// A token for each identity of the caller, or for the `wanted` one alone.
    pub(super) async fn fetch_jwt_svids(
        &self,
        caller: &Caller,
        found: &BTreeSet<Selector>,
        wanted: Option<&SpiffeId>,
        audience: &[String],
    ) -> Result<JwtsvidResponse, Status> {
        let mut entries = self.parts.cache.matching(found);
        entries.retain(|entry| wanted.is_none_or(|wanted| entry.spiffe_id == *wanted));
        if entries.is_empty() {
            return Err(self.no_identity(Method::FetchJwtSvid, caller, found));
        }
        let tokens = entries.into_iter().map(|entry| self.fetch_jwt_svid(caller, entry, audience));
        let svids = iter(tokens).buffered(PARALLEL).try_collect().await?;
        Ok(JwtsvidResponse { svids })
    }

    async fn fetch_jwt_svid(
        &self,
        caller: &Caller,
        entry: Arc<Entry>,
        audience: &[String],
    ) -> Result<Jwtsvid, Status> {
        let svid = self.parts.jwt_svids.fetch(&entry, audience).await.map_err(|error| {
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
        let ttl = svid.expires_at.duration_since(self.parts.clock.now()).as_secs();
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

    /// Checks a token with the bundles that the caller may see.
    pub(super) fn validate(
        &self,
        found: &BTreeSet<Selector>,
        token: &str,
        audience: &str,
    ) -> Result<ValidateJwtsvidResponse, Status> {
        let bundles = self.parts.cache.bundles(found);
        let bundle_of = |trust_domain: &TrustDomain| -> Option<Arc<Bundle>> {
            bundles.iter().find(|bundle| bundle.trust_domain == *trust_domain).cloned()
        };
        let verified = jwt::verify(token, audience, bundle_of, self.parts.clock.now())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let mut claims = verified.claims;
        if verified.id.trust_domain() != self.parts.trust_domain {
            let allowed = &self.parts.allowed_foreign_jwt_claims;
            claims.retain(|name, _| {
                matches!(name.as_str(), "sub" | "exp" | "aud") || allowed.contains(name)
            });
        }
        let spiffe_id = verified.id.to_string();
        let claims = Some(to_struct(claims));
        Ok(ValidateJwtsvidResponse { spiffe_id, claims })
    }
}

/// The identity that a request asks for, where it asks for one.
pub(super) fn wanted_id(text: &str) -> Result<Option<SpiffeId>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let invalid = |error| Status::invalid_argument(format!("invalid requested SPIFFE ID: {error}"));
    SpiffeId::parse(text).map(Some).map_err(invalid)
}

pub(super) fn check_audience(audience: &[String]) -> Result<(), Status> {
    if audience.is_empty() {
        return Err(Status::invalid_argument("audience must be specified"));
    }
    // The server leaves out empty values where there are others.
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
