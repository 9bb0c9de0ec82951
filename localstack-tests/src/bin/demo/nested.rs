//! The demo of four servers on three levels: identities of one leaf count below the other.

use anyhow::{Context, ensure};
use spire_localstack_tests::binaries::Binaries;
use spire_localstack_tests::nested::{Nested, Place, Settings, WORKLOADS};
use spire_localstack_tests::server::TRUST_DOMAIN;
use spire_localstack_tests::user::User;
use spire_localstack_tests::{command, packages};

use crate::Timeline;

pub(crate) async fn demo(keep: bool) -> anyhow::Result<()> {
    println!("\nA trust domain of four servers: a root, one in the middle, and two leaves\n");
    let timeline = Timeline::begin();
    let says = |place: &Place| timeline.says("server and agent", place.name);
    let nested = Nested::start(&Settings::default(), says).await?;
    let [left, right] = &nested.leaves;
    for (leaf, path) in nested.leaves.iter().zip(WORKLOADS) {
        let write = leaf.folder.path().display().to_string();
        let fetched = fetch(leaf, &["api", "fetch", "x509", "-write", &write]).await?;
        let id = format!("spiffe://{TRUST_DOMAIN}{path}");
        ensure!(fetched.contains(&id), "another identity than {id}: {fetched}");
        timeline.says("X.509-SVID fetched", &format!("{}: {id}", leaf.name));
    }
    for (from, to) in [(left, right), (right, left)] {
        let file = |place: &Place, name: &str| place.folder.join(name).display().to_string();
        let (svid, bundle) = (file(from, "svid.0.pem"), file(to, "bundle.0.pem"));
        let mut verify = packages::command("openssl", "openssl")?;
        verify.args(["verify", "-CAfile", &bundle, "-untrusted", &svid, &svid]);
        command::run(verify).await?.success()?;
        let how = format!("openssl verify: of the {}, by the bundle of the {}", from.name, to.name);
        timeline.says("X.509-SVID verified", &how);
        let fetched = fetch(from, &["api", "fetch", "jwt", "-audience", "demo"]).await?;
        let token = fetched.lines().nth(1).context("an answer without a token")?.trim();
        until_known(to, token).await?;
        timeline.says("JWT-SVID verified", &format!("of the {}, by the {}", from.name, to.name));
    }
    println!("\nspire-server authority show, of the left leaf:\n");
    println!("{}", left.server.command(&["authority", "show"]).await?);
    if keep {
        print_commands(&nested)?;
        std::future::pending::<()>().await;
    }
    nested.stop().await?;
    timeline.says("cleaned up", "no process and no file is left");
    Ok(())
}

async fn fetch(leaf: &Place, words: &[&str]) -> anyhow::Result<String> {
    leaf.agent.command(User::current(), words).await?.success()
}

/// The key of a server that has just started is on its way to the others for some seconds.
async fn until_known(leaf: &Place, token: &str) -> anyhow::Result<()> {
    let validate = ["api", "validate", "jwt", "-audience", "demo", "-svid", token];
    let known = async {
        while leaf.agent.command(User::current(), &validate).await?.code != Some(0) {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        anyhow::Ok(())
    };
    let limit = std::time::Duration::from_secs(60);
    let known = tokio::time::timeout(limit, known).await;
    known.with_context(|| format!("the {} does not learn the other's key", leaf.name))?
}

/// Says what can be tried: every line works as it stands, in any shell.
fn print_commands(nested: &Nested) -> anyhow::Result<()> {
    let programs = Binaries::find()?;
    println!("All run until Ctrl-C. To try, in another terminal:\n");
    for place in nested.places() {
        let (server, agent) = (programs.server.display(), programs.agent.display());
        let socket = place.server.socket().display();
        println!("  {server} authority show -socketPath {socket}");
        println!("  {server} localauthority x509 prepare -socketPath {socket}");
        println!("  {agent} api fetch x509 -socketPath {}", place.agent.socket().display());
        println!("  cat {}/*.conf", place.folder.path().display());
    }
    Ok(())
}
