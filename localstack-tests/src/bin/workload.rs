//! A workload that asks for its identities with a client library that was written elsewhere, the
//! crate `spiffe`: `workload ADDRESS FOLDER` writes `svid.pem`, `key.der` and `bundle.pem` into the
//! folder, checks a JWT-SVID of its own against the JWT bundle, and prints both SPIFFE IDs.

use std::fs;
use std::path::Path;

use anyhow::Context;
use spiffe::{JwtSvid, WorkloadApiClient};
use spire_core::bundle::certificate_pem;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(folder)) = (arguments.next(), arguments.next()) else {
        anyhow::bail!("usage: workload ADDRESS FOLDER");
    };
    let folder = Path::new(&folder);
    let client = WorkloadApiClient::connect_to(address).await?;

    let context = client.fetch_x509_context().await?;
    let svid = context.default_svid().context("an answer without an SVID")?;
    let trust_domain = svid.spiffe_id().trust_domain();
    let bundle = context.bundle_set().get(trust_domain).context("no bundle of the SVID")?;
    let pem = |certificates: &[spiffe::cert::Certificate]| {
        certificates.iter().map(|one| certificate_pem(one.as_bytes())).collect::<String>()
    };
    fs::write(folder.join("svid.pem"), pem(svid.cert_chain()))?;
    fs::write(folder.join("bundle.pem"), pem(bundle.authorities()))?;
    fs::write(folder.join("key.der"), svid.private_key().as_bytes())?;
    println!("X.509 {}", svid.spiffe_id());

    let token = client.fetch_jwt_svid(["somebody"], None).await?;
    let bundles = client.fetch_jwt_bundles().await?;
    let checked = JwtSvid::parse_and_validate(token.token(), &bundles, &["somebody"])?;
    println!("JWT {}", checked.spiffe_id());
    Ok(())
}
