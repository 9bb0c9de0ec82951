//! What calls leave in the log: a line for each that failed, and with `audit_log_enabled` a line
//! for each operation, whether it failed or not.

use std::fmt::Display;
use std::fs;
use std::path::PathBuf;

use aws_lc_rs::digest;
use spire_core::entry::Entry;
use spire_core::grpc::code_name;
use spire_core::wire::types;
use tonic::Code;
use tracing::Value;

use super::call::Call;
use crate::caller::{Caller, LocalPeer};

/// How an operation ended.
#[derive(Debug, Clone, Copy)]
pub enum Outcome<'m> {
    /// As asked.
    Done,
    /// With this code and message.
    Failed(Code, &'m str),
}

/// Hands all names of fields that the audit log may have to a macro: the log wants to know them at
/// compile time.
macro_rules! for_all_names {
    ($then:ident) => {
        $then!(
            spiffe_id parent_id selectors ttl x509_svid_ttl jwt_svid_ttl federates_with admin
            downstream dns_name expires_at entry_id revision_number hint store_svid csr audience
            agent_id node_attestor_type trust_domain_id bundle_endpoint_url bundle_endpoint_profile
            refresh_hint sequence_number x509_authorities_asn1_sha256 jwt_authority_key_id mode
            by_id by_parent_id by_spiffe_id by_selectors by_selector_match by_federates_with by_hint
            by_downstream by_attestation_type by_banned by_can_reattest by_expires_before new_level
            local_authority_id subject_key_id
        )
    };
}

macro_rules! texts {
    ($($name:ident)*) => { &[$(stringify!($name)),*] };
}

const NAMES: &[&str] = for_all_names!(texts);

/// What the audit log says of an operation: names from `for_all_names`, and values. Never put a
/// key, a token or a whole request in.
#[derive(Default)]
pub struct Fields(Vec<(&'static str, Box<dyn Value + Send + Sync>)>);

impl std::fmt::Debug for Fields {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl Fields {
    /// Adds a field as text.
    pub fn add(&mut self, name: &'static str, value: impl Display) {
        self.add_value(name, value.to_string());
    }

    /// Adds a number or a flag.
    pub fn add_value(&mut self, name: &'static str, value: impl Value + Send + Sync + 'static) {
        debug_assert!(NAMES.contains(&name), "the audit log has no field {name:?}");
        self.0.push((name, Box::new(value)));
    }

    /// Adds texts, separated by commas.
    pub fn add_list<T: Display>(
        &mut self,
        name: &'static str,
        values: impl IntoIterator<Item = T>,
    ) {
        let texts: Vec<_> = values.into_iter().map(|value| value.to_string()).collect();
        self.add(name, texts.join(","));
    }

    /// Adds the SHA-256 of a certificate request, in hexadecimal digits.
    pub fn add_csr(&mut self, csr: &[u8]) {
        self.add("csr", hex::encode(digest::digest(&digest::SHA256, csr)));
    }

    /// Adds an ID as it stands in a request, whether it is valid or not.
    pub fn add_wire_id(&mut self, name: &'static str, id: Option<&types::Spiffeid>) {
        if let Some(id) = id {
            self.add(name, format!("spiffe://{}{}", id.trust_domain, id.path));
        }
    }

    /// Adds what an entry in a request says.
    pub fn add_wire_entry(&mut self, entry: &types::Entry) {
        if !entry.id.is_empty() {
            self.add("entry_id", &entry.id);
        }
        self.add_wire_id("spiffe_id", entry.spiffe_id.as_ref());
        self.add_wire_id("parent_id", entry.parent_id.as_ref());
        let selectors = entry.selectors.iter();
        self.add_list("selectors", selectors.map(|one| format!("{}:{}", one.r#type, one.value)));
        self.add_value("x509_svid_ttl", entry.x509_svid_ttl);
        self.add_value("jwt_svid_ttl", entry.jwt_svid_ttl);
        self.add_list("federates_with", &entry.federates_with);
        self.add_value("admin", entry.admin);
        self.add_value("downstream", entry.downstream);
        self.add_list("dns_name", &entry.dns_names);
        self.add_value("expires_at", entry.expires_at);
        self.add("hint", &entry.hint);
        self.add_value("store_svid", entry.store_svid);
    }

    /// Adds what the server decided about an entry.
    pub fn add_stored_entry(&mut self, entry: &Entry) {
        self.add("entry_id", &entry.id);
        self.add_value("revision_number", entry.revision_number);
    }

    /// Adds the authorities of a bundle in a request: digests and ids.
    pub fn add_authorities(&mut self, x509: &[types::X509Certificate], jwt: &[types::JwtKey]) {
        let digest =
            |one: &types::X509Certificate| hex::encode(digest::digest(&digest::SHA256, &one.asn1));
        if !x509.is_empty() {
            self.add_list("x509_authorities_asn1_sha256", x509.iter().map(digest));
        }
        if !jwt.is_empty() {
            self.add_list("jwt_authority_key_id", jwt.iter().map(|one| &one.key_id));
        }
    }

    /// The value that was added last under this name.
    fn find(&self, name: &str) -> Option<&(dyn Value + Send + Sync)> {
        self.0.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| &**value)
    }
}

/// Writes the line of a call, or of an item, that failed.
pub(super) fn log_failure(call: &Call, code: Code, message: &str) {
    let message = match code {
        Code::InvalidArgument => format!("Invalid argument: {message}"),
        _ => capitalized(message),
    };
    tracing::error!(
        subsystem_name = "api",
        service = call.rule().short_service(),
        method = call.rule().method,
        request_id = %call.request_id(),
        caller_addr = call.caller().address().map(tracing::field::display),
        caller_id = call.caller().id().map(tracing::field::display),
        status_code = code_name(code),
        "{message}"
    );
}

/// Writes the line of a successful call, for whoever looks closely.
pub(super) fn log_success(call: &Call) {
    tracing::debug!(
        subsystem_name = "api",
        service = call.rule().short_service(),
        method = call.rule().method,
        request_id = %call.request_id(),
        caller_addr = call.caller().address().map(tracing::field::display),
        caller_id = call.caller().id().map(tracing::field::display),
        "Call succeeded"
    );
}

/// Writes a line of the audit log.
pub(super) fn log_access(call: &Call, fields: &Fields, outcome: &Outcome<'_>) {
    let (status, code, message) = match outcome {
        Outcome::Done => ("success", None, None),
        Outcome::Failed(code, message) => ("error", Some(code_name(*code)), Some(*message)),
    };
    let peer = match call.caller() {
        Caller::Local(peer) => Some(peer),
        Caller::Remote(_) => None,
    };
    let path = peer.and_then(executable);
    macro_rules! log {
        ($($name:ident)*) => {
            tracing::info!(
                subsystem_name = "api",
                "type" = "audit",
                status,
                status_code = code,
                status_message = message,
                request_id = %call.request_id(),
                service = call.rule().short_service(),
                method = call.rule().method,
                caller_addr = call.caller().address().map(tracing::field::display),
                caller_id = call.caller().id().map(tracing::field::display),
                caller_uid = peer.map(|peer| peer.uid),
                caller_gid = peer.map(|peer| peer.gid),
                caller_path = path.as_ref().map(|path| tracing::field::display(path.display())),
                authorized_as = call.grant().and_then(|grant| grant.authorized_as()),
                authorized_via = call.grant().and_then(|grant| grant.authorized_via()),
                $($name = fields.find(stringify!($name)),)*
                "API accessed"
            )
        };
    }
    for_all_names!(log);
}

fn executable(peer: &LocalPeer) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{}/exe", peer.pid?)).ok()
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}
