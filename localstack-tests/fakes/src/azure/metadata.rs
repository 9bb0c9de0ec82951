//! Metadata services of machines: what the machine is, documents, and tokens of its identity.

use std::sync::{Arc, Mutex, OnceLock};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::document::Message;
use super::entra::Entra;
use super::machine::Machine;
use super::pki::{CertificateKind, Issued, Pki};
use super::{TENANT, World, answer, locked};
use crate::http::{HttpServer, Request, Response};

/// The content of a document about `machine`, around `nonce`.
pub(crate) fn content(machine: &Machine, nonce: &str, now: Timestamp) -> Value {
    let time = |time: Timestamp| time.strftime("%m/%d/%y %H:%M:%S -0000").to_string();
    json!({
        "licenseType": "",
        "nonce": nonce,
        "plan": { "name": "", "product": "", "publisher": "" },
        "sku": "22_04-lts-gen2",
        "subscriptionId": machine.subscription,
        "timeStamp": {
            "createdOn": time(now),
            "expiresOn": time(now + SignedDuration::from_hours(6)),
        },
        "vmId": machine.vm_id,
    })
}

impl super::Azure {
    /// The content that a document about `machine` has now.
    pub fn document_content(&self, machine: &Machine, nonce: &str) -> Value {
        content(machine, nonce, Timestamp::now())
    }
}

pub(crate) async fn serve(
    entra: Arc<Entra>,
    pki: Arc<Pki>,
    world: Arc<Mutex<World>>,
) -> HttpServer {
    let signer = OnceLock::new();
    let domain = locked(&world).names.metadata;
    let kind = CertificateKind {
        common_name: domain.to_owned(),
        dns_names: vec![format!("westeurope.{domain}"), domain.to_owned()],
        ..CertificateKind::default()
    };
    HttpServer::start(move |request| {
        let signer = signer.get_or_init(|| pki.issue(&kind));
        ask(&entra, signer, &locked(&world), request)
    })
    .await
}

fn ask(entra: &Entra, signer: &Issued, world: &World, request: &Request) -> Response {
    if request.header("metadata") != "true" || !request.header("x-forwarded-for").is_empty() {
        let error = "Bad request. Required metadata header not specified";
        return answer(400, &json!({ "error": error }));
    }
    let (machine, path) = match request.path.strip_prefix("/vm/") {
        Some(rest) => {
            let (id, path) = rest.split_once('/').unwrap_or((rest, ""));
            let machine = world.machines.iter().find(|machine| machine.vm_id == id);
            (machine, format!("/{path}"))
        }
        None => (world.machines.first(), request.path.clone()),
    };
    let Some(machine) = machine else { return answer(404, &json!({ "error": "no machine" })) };
    let query = url::form_urlencoded::parse(request.query.as_bytes());
    let query: Vec<(String, String)> = query.into_owned().collect();
    let field = |name: &str| {
        let field = query.iter().find(|(key, _)| key == name);
        field.map(|(_, value)| value.as_str())
    };
    if field("api-version").is_none() {
        return answer(400, &json!({ "error": "Bad request. api-version was not specified" }));
    }
    match path.as_str() {
        "/metadata/instance" => answer(
            200,
            &json!({ "compute": {
                "name": machine.name,
                "subscriptionId": machine.subscription,
                "resourceGroupName": machine.group,
                "vmId": machine.vm_id,
                "vmScaleSetName": machine.set_name().unwrap_or_default(),
            } }),
        ),
        "/metadata/attested/document" => {
            let now = Timestamp::now();
            let without = now + SignedDuration::from_hours(6);
            let without = without.strftime("%Y%m%d-%H%M%S").to_string();
            let content = content(machine, field("nonce").unwrap_or(&without), now);
            let message = Message::signed_by(signer, content.to_string().as_bytes());
            answer(200, &json!({ "encoding": "pkcs7", "signature": message.base64() }))
        }
        "/metadata/identity/oauth2/token" => {
            let resource = field("resource").unwrap_or_default();
            // The server's own identity asks with a newer version.
            let token = match field("api-version") {
                Some("2019-08-01") => entra.give(TENANT),
                _ => entra.token(&entra.claims(TENANT, &machine.principal_id, resource)),
            };
            let expires_on = (Timestamp::now().as_second() + 86_400).to_string();
            answer(
                200,
                &json!({
                    "access_token": token,
                    "expires_on": expires_on,
                    "resource": resource,
                    "token_type": "Bearer",
                }),
            )
        }
        _ => answer(404, &json!({ "error": "Not found" })),
    }
}
