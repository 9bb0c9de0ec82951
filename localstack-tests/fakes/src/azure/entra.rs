//! Microsoft Entra: discovery, keys, and tokens for applications.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::asn1::{content, parts};
use super::{APP, APP_SECRET, Names, World, answer, locked};
use crate::http::{HttpServer, Request, Response};

/// The ID of the key that signs tokens.
const KEY_ID: &str = "fake-entra-key-1";

/// The key that signs tokens in this process: it takes long to make.
static KEY: LazyLock<Arc<RsaKeyPair>> =
    LazyLock::new(|| Arc::new(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key")));

/// The issuer of tokens.
pub struct Entra {
    names: Names,
    key: Arc<RsaKeyPair>,
    /// What is published in place of the keys.
    published: Mutex<Option<Value>>,
    /// Tokens that applications were given, with their tenants.
    given: Mutex<HashMap<String, String>>,
}

impl std::fmt::Debug for Entra {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Entra").finish_non_exhaustive()
    }
}

impl Entra {
    /// The issuer in the cloud of these names, with the key of this process.
    pub fn new(names: Names) -> Self {
        Self { names, key: KEY.clone(), published: Mutex::default(), given: Mutex::default() }
    }

    /// A token with these claims, signed as genuine ones are.
    pub fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({ "typ": "JWT", "alg": "RS256", "kid": KEY_ID }), claims)
    }

    /// A token with this header, signed with RSA and SHA-256 whatever it says.
    pub fn token_with(&self, header: &Value, claims: &Value) -> String {
        self.token_of(&header.to_string(), &claims.to_string())
    }

    /// A token of these texts, signed with RSA and SHA-256.
    pub fn token_of(&self, header: &str, claims: &str) -> String {
        let signed =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .expect("an RSA key signs");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// What a token of a managed identity claims now.
    pub fn claims(&self, tenant: &str, principal: &str, audience: &str) -> Value {
        let now = Timestamp::now().as_second();
        json!({
            "aud": audience,
            "iss": format!("{}{tenant}/", self.names.issuer),
            "iat": now,
            "nbf": now,
            "exp": now + 86_400,
            "tid": tenant,
            "sub": principal,
            "oid": principal,
        })
    }

    /// The modulus of its key, which some would use as a shared secret.
    pub fn modulus(&self) -> Vec<u8> {
        self.number(0)
    }

    /// The modulus or the exponent of its key, without leading zeros.
    fn number(&self, at: usize) -> Vec<u8> {
        let number = &parts(self.key.public_key().as_ref())[at];
        content(number).0.iter().copied().skip_while(|byte| *byte == 0).collect()
    }

    /// The keys that it publishes.
    pub fn keys(&self) -> Value {
        json!({ "keys": [{
            "kty": "RSA",
            "use": "sig",
            "kid": KEY_ID,
            "n": URL_SAFE_NO_PAD.encode(self.modulus()),
            "e": URL_SAFE_NO_PAD.encode(self.number(1)),
        }] })
    }

    /// Has it publish something else; `None` ends it.
    pub fn publish(&self, keys: Option<Value>) {
        *locked(&self.published) = keys;
    }

    /// The tenant of an application's token.
    pub(crate) fn tenant_of(&self, token: &str) -> Option<String> {
        locked(&self.given).get(token).cloned()
    }

    /// A token for an application or a managed identity of that tenant.
    pub(crate) fn give(&self, tenant: &str) -> String {
        let token = format!("token-{}", uuid::Uuid::new_v4());
        locked(&self.given).insert(token.clone(), tenant.to_owned());
        token
    }
}

pub(crate) async fn serve(entra: Arc<Entra>, world: Arc<Mutex<World>>) -> HttpServer {
    HttpServer::start(move |request| login(&entra, &locked(&world), request)).await
}

fn login(entra: &Entra, world: &World, request: &Request) -> Response {
    let Names { login, issuer, .. } = world.names;
    let path: Vec<&str> = request.path.split('/').skip(1).collect();
    match path[..] {
        ["common", "discovery", "keys"] => {
            let published = locked(&entra.published).clone();
            answer(200, &published.unwrap_or_else(|| entra.keys()))
        }
        [tenant, ".well-known", "openid-configuration"] => {
            let id = match tenant {
                "common" => Some("{tenantid}".to_owned()),
                name => tenant_id(world, name),
            };
            let Some(id) = id else {
                return answer(400, &json!({ "error": "invalid_tenant" }));
            };
            let issuer = format!("{issuer}{id}/");
            // It tells its own name, whatever name it was asked by.
            let keys = format!("https://{login}/common/discovery/keys");
            answer(200, &json!({ "issuer": issuer, "jwks_uri": keys }))
        }
        [tenant, "oauth2", "v2.0", "token"] => give_token(entra, world, tenant, request),
        _ => answer(404, &json!({ "error": "not_found" })),
    }
}

fn tenant_id(world: &World, name: &str) -> Option<String> {
    let tenant = world.tenants.iter().find(|(id, domain)| id == name || domain == name);
    tenant.map(|(id, _)| id.clone())
}

fn give_token(entra: &Entra, world: &World, tenant: &str, request: &Request) -> Response {
    let form: HashMap<String, String> =
        url::form_urlencoded::parse(&request.body).into_owned().collect();
    let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    let vouched = field("client_assertion").split('.').count() == 3
        && field("client_assertion_type").ends_with("jwt-bearer");
    let is_known = field("client_id") == APP
        && field("grant_type") == "client_credentials"
        && field("scope") == format!("https://{}/.default", world.names.resource_manager)
        && (field("client_secret") == APP_SECRET || vouched);
    match tenant_id(world, tenant).filter(|_| is_known) {
        Some(id) => answer(
            200,
            &json!({
                "token_type": "Bearer",
                "expires_in": 3599,
                "ext_expires_in": 3599,
                "access_token": entra.give(&id),
            }),
        ),
        None => answer(
            401,
            &json!({
                "error": "invalid_client",
                "error_description": "AADSTS7000215: Invalid client secret provided.",
                "error_codes": [7_000_215],
            }),
        ),
    }
}
