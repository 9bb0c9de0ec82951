//! `x509 mint` and `jwt mint`: SVIDs that an operator asks for by name, without an entry.

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use spire_core::bundle::certificate_pem;
use spire_core::command::{
    Command, Context, Failure, Outcome, answer, file_in, is_json, print, print_error, print_json,
    write_private, write_public,
};
use spire_core::entry::DnsName;
use spire_core::flags::{Flag, Values};
use spire_core::id::SpiffeId;
use spire_core::keys::{KeyType, LocalKey, private_key_pem};
use spire_core::svid::x509::{Subject, mint_request};
use spire_core::wire::bundle::GetBundleRequest;
use spire_core::wire::bundle::bundle_client::BundleClient;
use spire_core::wire::svid::svid_client::SvidClient;
use spire_core::wire::svid::{MintJwtsvidRequest, MintX509svidRequest};
use spire_core::wire::types::BundleMask;
use zeroize::Zeroizing;

use super::values::spiffe_id;
use super::{COMMON, SOCKET};

const SPIFFE_ID: Flag = Flag::text("spiffeID", "SPIFFE ID of the SVID");
const TTL: Flag = Flag::duration("ttl", "Lifetime of the SVID; without it, the server's default");

pub(super) const COMMANDS: &[Command] = &[
    Command::new(
        "jwt mint",
        "Mints a JWT-SVID.",
        &[
            COMMON,
            &[
                SPIFFE_ID,
                Flag::list("audience", "Whom the token is for. Can be used more than once"),
                TTL,
                Flag::text("write", "File to write the token to instead of standard output"),
            ],
        ],
        |values| Box::pin(mint_jwt(values)),
    )
    .example("spire-server jwt mint -spiffeID spiffe://example.org/app -audience db"),
    Command::new(
        "x509 mint",
        "Mints an X.509-SVID for a key that is made on the spot.",
        &[
            COMMON,
            &[
                SPIFFE_ID,
                Flag::list("dns", "DNS name in the SVID. Can be used more than once"),
                TTL,
                Flag::text(
                    "write",
                    "Folder to write svid.pem, key.pem and bundle.pem to instead of standard output",
                ),
            ],
        ],
        |values| Box::pin(mint_x509(values)),
    )
    .example("spire-server x509 mint -spiffeID spiffe://example.org/app -write /tmp/app"),
];

const FAILED: &str = "unable to mint SVID";

async fn mint_x509(values: Values) -> Outcome {
    let id = wanted_id(&values)?;
    let dns_names = values.list("dns").iter().map(|name| name.parse::<DnsName>());
    let dns_names = dns_names.collect::<Result<Vec<_>, _>>()?;
    let ttl = values.duration(TTL.name);
    let seconds = whole_seconds(ttl)?;

    let key = LocalKey::generate(KeyType::EcP256).await?;
    let csr = mint_request(&key, &Subject::default(), &dns_names, &id).await?;
    let channel = SOCKET.channel(&values)?;
    let request = MintX509svidRequest { csr, ttl: seconds };
    let minted = SvidClient::new(channel.clone()).mint_x509svid(request).await.context(FAILED)?;
    let svid = minted.into_inner().svid.ok_or_else(|| Failure::new("server answered no SVID"))?;
    let output_mask = Some(BundleMask { x509_authorities: true, ..BundleMask::default() });
    let bundle = BundleClient::new(channel).get_bundle(GetBundleRequest { output_mask }).await;
    let roots = bundle.context("unable to get bundle")?.into_inner().x509_authorities;

    warn_if_capped("X509-SVID", svid.expires_at, ttl);
    let minted = MintedX509 {
        chain: svid.cert_chain,
        key: key.to_pkcs8()?,
        roots: roots.into_iter().map(|root| root.asn1).collect(),
    };
    match values.given_text("write") {
        Some(folder) => minted.write(folder),
        None if is_json(&values) => minted.print_json(),
        None => minted.print(),
    }
}

struct MintedX509 {
    chain: Vec<Bytes>,
    /// PKCS#8, DER.
    key: Zeroizing<Vec<u8>>,
    roots: Vec<Bytes>,
}

/// The SVID as JSON, members in this order, DER in base64.
#[derive(Serialize)]
struct MintedX509Json {
    x509_svid: Vec<String>,
    private_key: String,
    root_cas: Vec<String>,
}

impl MintedX509 {
    fn print(&self) -> Outcome {
        let (chain, roots) = (pem(&self.chain), pem(&self.roots));
        let key = private_key_pem(&self.key);
        let text = format!("X509-SVID:\n{chain}\nPrivate key:\n{}\nRoot CAs:\n{roots}\n", *key);
        print(&Zeroizing::new(text))
    }

    fn print_json(&self) -> Outcome {
        let all = |list: &[Bytes]| list.iter().map(|der| STANDARD.encode(der)).collect();
        print_json(&serde_json::to_value(MintedX509Json {
            x509_svid: all(&self.chain),
            private_key: STANDARD.encode(&*self.key),
            root_cas: all(&self.roots),
        })?)
    }

    fn write(&self, folder: &str) -> Outcome {
        let path = file_in(folder, "svid.pem");
        write_public(&path, pem(&self.chain).as_bytes()).context("unable to write SVID")?;
        print(&format!("X509-SVID written to {}\n", path.display()))?;

        let path = file_in(folder, "key.pem");
        let key = private_key_pem(&self.key);
        write_private(&path, key.as_bytes()).context("unable to write private key")?;
        print(&format!("Private key written to {}\n", path.display()))?;

        let path = file_in(folder, "bundle.pem");
        write_public(&path, pem(&self.roots).as_bytes()).context("unable to write root CAs")?;
        print(&format!("Root CAs written to {}\n", path.display()))
    }
}

async fn mint_jwt(values: Values) -> Outcome {
    let id = wanted_id(&values)?;
    let audience = values.list("audience").to_vec();
    if audience.is_empty() {
        return Err(Failure::new("at least one audience must be specified"));
    }
    let ttl = values.duration(TTL.name);
    let seconds = whole_seconds(ttl)?;
    let request = MintJwtsvidRequest { id: Some((&id).into()), audience, ttl: seconds };
    let minted = SvidClient::new(SOCKET.channel(&values)?).mint_jwtsvid(request).await;
    let minted = minted.context(FAILED)?.into_inner();
    let svid = minted.svid.as_ref().ok_or_else(|| Failure::new("server answered no SVID"))?;

    warn_if_capped("JWT-SVID", svid.expires_at, ttl);
    match values.given_text("write") {
        Some(path) => {
            let written = write_private(Path::new(path), svid.token.as_bytes());
            written.context("unable to write token")?;
            print(&format!("JWT-SVID written to {path}\n"))
        }
        None => answer(&values, &minted, || format!("{}\n", svid.token)),
    }
}

fn wanted_id(values: &Values) -> Result<SpiffeId, Failure> {
    let id = values.given_text(SPIFFE_ID.name);
    spiffe_id(SPIFFE_ID.name, id.ok_or_else(|| Failure::new("spiffeID must be specified"))?)
}

/// Rounded up, as the server's API counts; 0 leaves the lifetime to the server.
fn whole_seconds(ttl: Duration) -> Result<i32, Failure> {
    let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
    i32::try_from(seconds).map_err(|_| {
        Failure::new(format!(
            "invalid value for TTL: overflow converting uint64({seconds}) to int32"
        ))
    })
}

fn warn_if_capped(what: &str, expires_at: i64, ttl: Duration) {
    let Ok(expires_at) = Timestamp::from_second(expires_at) else { return };
    let left = expires_at.duration_since(Timestamp::now());
    if left < SignedDuration::try_from(ttl).unwrap_or(SignedDuration::MAX) {
        print_error(&format!(
            "{what} lifetime was capped shorter than specified ttl; expires \"{expires_at}\"\n"
        ));
    }
}

fn pem(chain: &[Bytes]) -> String {
    chain.iter().map(|der| certificate_pem(der)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_rounded_up_to_what_the_api_can_say() {
        assert_eq!(whole_seconds(Duration::ZERO).unwrap(), 0);
        assert_eq!(whole_seconds(Duration::from_millis(1001)).unwrap(), 2);
        assert_eq!(whole_seconds(Duration::from_secs(60)).unwrap(), 60);
        assert!(whole_seconds(Duration::from_secs(1 << 31)).is_err());
    }
}
