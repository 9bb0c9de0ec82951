//! `cargo demo`: a server, an agent and a workload from nothing to verified identities, with times.
//! `cargo demo -- --keep` leaves the programs running until Ctrl-C.

use std::time::Instant;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp, Unit};
use spiffe::{JwtSvid, WorkloadApiClient};
use spire_core::bundle::Bundle;
use spire_core::id::TrustDomain;
use spire_core::svid::x509;
use spire_localstack_tests::binaries::Binaries;
use spire_localstack_tests::process::PATIENCE;
use spire_localstack_tests::server::{TRUST_DOMAIN, agent_path, entry};
use spire_localstack_tests::user::User;
use spire_localstack_tests::{Agent, AgentFile, Folder, Server, ServerFile};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let keep = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [flag] if flag == "--keep" => true,
        _ => bail!("usage: cargo demo [-- --keep]"),
    };
    // What has been started ends with the future that holds it.
    tokio::select! {
        ended = demo(keep) => ended,
        stopped = tokio::signal::ctrl_c() => {
            println!("\nStopped; nothing is left behind.");
            Ok(stopped?)
        }
    }
}

async fn demo(keep: bool) -> anyhow::Result<()> {
    Binaries::find()?;
    let user = User::current();
    let folder = Folder::new()?;
    println!("\nA trust domain in {}\n", folder.path().display());
    let timeline = Timeline(Instant::now());

    let server = Server::start(&folder, &ServerFile::default()).await?;
    timeline.says("server started", "SQLite, a CA that it signed itself");
    let token = server.join_token().await?;
    let selector = format!("unix:uid:{}", user.uid);
    server.create_entry(entry(&agent_path(&token), "/demo", &selector)).await?;
    timeline.says("entry created", &format!("spiffe://{TRUST_DOMAIN}/demo for {selector}"));
    let agent = Agent::start(&folder, &server, &token, &AgentFile::default()).await?;
    timeline.says("node attested", "by a join token; the agent serves workloads");

    let client = WorkloadApiClient::connect_to(agent.endpoint()).await?;
    let context = tokio::time::timeout(PATIENCE, client.fetch_x509_context()).await??;
    let svid = context.default_svid().context("an answer without an SVID")?;
    timeline.says("X.509-SVID fetched", &svid.spiffe_id().to_string());
    let roots = context.bundle_set().get(svid.spiffe_id().trust_domain());
    let roots = roots.context("an answer without the bundle")?;
    let roots: Vec<u8> =
        roots.authorities().iter().flat_map(|root| root.as_bytes().to_vec()).collect();
    let bundle = Bundle::from_der(TrustDomain::parse(TRUST_DOMAIN)?, &roots)?;
    let chain = svid.cert_chain().iter().map(|one| Bytes::copy_from_slice(one.as_bytes()));
    let verified = x509::verify(&chain.collect::<Vec<_>>(), &bundle, Timestamp::now())?;
    timeline.says("X.509-SVID verified", &until(verified.expires_at));

    let token = client.fetch_jwt_svid(["demo-audience"], None).await?;
    timeline.says("JWT-SVID fetched", "for the audience demo-audience");
    let bundles = client.fetch_jwt_bundles().await?;
    let verified = JwtSvid::parse_and_validate(token.token(), &bundles, &["demo-audience"])?;
    ensure!(verified.spiffe_id() == svid.spiffe_id(), "the two SVIDs name different workloads");
    let expiry = Timestamp::from_second(verified.expiry().unix_timestamp())?;
    timeline.says("JWT-SVID verified", &until(expiry));

    if keep {
        println!(
            "\nBoth run until Ctrl-C. Any SPIFFE library gets identities here:\n\n  \
             export SPIFFE_ENDPOINT_SOCKET={}\n\nTo write them into a folder, and to see what was \
             set up:\n\n  cargo run --quiet --bin workload -- {} /tmp\n  cat {}/*.conf\n",
            agent.endpoint(),
            agent.endpoint(),
            folder.path().display()
        );
        std::future::pending::<()>().await;
    }
    drop((agent, server, folder));
    timeline.says("cleaned up", "no process and no file is left");
    println!("\nTo look around: cargo demo -- --keep");
    Ok(())
}

fn until(expiry: Timestamp) -> String {
    let left = expiry.duration_since(Timestamp::now());
    let left = left.round(Unit::Second).unwrap_or(left);
    format!("against the bundle; valid for {:#}", left.max(SignedDuration::ZERO))
}

/// Says what happened, and when.
struct Timeline(Instant);

impl Timeline {
    fn says(&self, what: &str, how: &str) {
        let seconds = self.0.elapsed().as_secs_f64();
        println!("  {seconds:>6.2} s  {what:<20}  {how}");
    }
}
