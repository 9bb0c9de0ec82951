//! `cargo demo`: a server, an agent and a workload from nothing to verified identities, by the
//! commands of SPIRE and with times. The node is an instance of a small cloud on this machine:
//! `--cloud aws` (the default), `gcp` or `azure`; `--cloud none` has it join by a token. `--keep`
//! leaves the programs running until Ctrl-C; `--nested` shows four servers on three levels.

mod nested;

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Parser;
use spire_localstack_tests::binaries::Binaries;
use spire_localstack_tests::cloud::{Cloud, Provider};
use spire_localstack_tests::server::TRUST_DOMAIN;
use spire_localstack_tests::user::User;
use spire_localstack_tests::{Agent, AgentFile, Folder, Server, ServerFile, command, packages};
use tokio::signal::unix::{SignalKind, signal};

/// Whom the demo's JWT-SVID is for.
const AUDIENCE: &str = "demo-audience";

/// Shows a server, an agent and a workload, from nothing to verified identities.
#[derive(Parser)]
#[command(name = "cargo demo --")]
struct Flags {
    /// Leave the programs running until Ctrl-C.
    #[arg(long)]
    keep: bool,
    /// Where the node is: aws, gcp or azure; none for a join token.
    #[arg(long, default_value = "aws")]
    cloud: String,
    /// Four servers on three levels instead.
    #[arg(long, conflicts_with = "cloud")]
    nested: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Flags { keep, cloud, nested } = Flags::parse();
    let provider = if cloud == "none" { None } else { Some(cloud.parse()?) };
    Binaries::find()?;
    let [mut interrupt, mut terminate, mut hang_up] = [
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
        signal(SignalKind::hangup())?,
    ];
    // Whatever the demo has started and written ends with its future.
    tokio::select! {
        ended = nested::demo(keep), if nested => return ended,
        ended = demo(keep, provider), if !nested => return ended,
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hang_up.recv() => {}
    }
    println!("\nStopped; no process and no file is left.");
    Ok(())
}

async fn demo(keep: bool, provider: Option<Provider>) -> anyhow::Result<()> {
    let folder = Folder::new()?;
    println!("\nA trust domain in {}\n", folder.path().display());
    let timeline = Timeline::begin();
    let user = User::current();
    let (host, workload) =
        (format!("spiffe://{TRUST_DOMAIN}/host"), format!("spiffe://{TRUST_DOMAIN}/demo"));
    let selector = format!("unix:uid:{}", user.uid);

    let cloud = match provider {
        Some(provider) => Some(Cloud::start(provider, &folder).await?),
        None => None,
    };
    let plugins = cloud.as_ref().map(|cloud| {
        timeline.says("cloud started", &cloud.title);
        cloud.of_server.clone()
    });
    let file = ServerFile { plugins: plugins.unwrap_or_default(), ..ServerFile::default() };
    let mut server = Server::start(&folder, &file).await?;
    timeline.says("server started", "spire-server run: SQLite, a CA that it signed itself");
    let token = match &cloud {
        Some(cloud) => {
            let alias = ["entry", "create", "-node", "-spiffeID", &host];
            server.command(&[&alias[..], &["-selector", cloud.selector]].concat()).await?;
            let how = format!("spire-server entry create -node: {host}, {}", cloud.selector);
            timeline.says("nodes named", &how);
            String::new()
        }
        None => {
            let token = server.join_token_for(&host).await?;
            timeline.says("token made", &format!("spire-server token generate -spiffeID {host}"));
            token
        }
    };
    let create = ["entry", "create", "-parentID", &host, "-spiffeID", &workload];
    server.command(&[&create[..], &["-selector", &selector]].concat()).await?;
    timeline.says("entry created", &format!("spire-server entry create: {workload}, {selector}"));
    let node_attestor = cloud.as_ref().map(|cloud| cloud.of_agent.clone());
    let file = AgentFile { node_attestor, ..AgentFile::default() };
    let mut agent = Agent::start(&folder, &server, &token, &file).await?;
    let run = if cloud.is_some() { "spire-agent run" } else { "spire-agent run -joinToken" };
    timeline.says("node attested", &format!("{run}: it serves workloads"));

    let file = |name: &str| folder.join(name).display().to_string();
    let fetch = ["api", "fetch", "x509", "-write", &folder.path().display().to_string()];
    let fetched = agent.command(user, &fetch).await?.success()?;
    ensure!(fetched.contains(&workload), "another identity than {workload}: {fetched}");
    timeline.says("X.509-SVID fetched", &format!("spire-agent api fetch x509: {workload}"));
    let (svid, bundle) = (file("svid.0.pem"), file("bundle.0.pem"));
    let mut verify = packages::command("openssl", "openssl")?;
    verify.args(["verify", "-CAfile", &bundle, "-untrusted", &svid, &svid]);
    command::run(verify).await?.success()?;
    timeline.says("X.509-SVID verified", "openssl verify: it leads to the bundle");

    let fetch = ["api", "fetch", "jwt", "-audience", AUDIENCE];
    let fetched = agent.command(user, &fetch).await?.success()?;
    let jwt = fetched.lines().nth(1).context("an answer without a token")?.trim();
    timeline.says("JWT-SVID fetched", &format!("spire-agent api fetch jwt -audience {AUDIENCE}"));
    let validate = ["api", "validate", "jwt", "-audience", AUDIENCE, "-svid", jwt];
    let validated = agent.command(user, &validate).await?.success()?;
    ensure!(validated.contains(&workload), "another identity than {workload}: {validated}");
    timeline.says("JWT-SVID verified", &format!("spire-agent api validate jwt: {workload}"));

    if keep {
        print_commands(&folder, &server, &agent, &host)?;
        std::future::pending::<()>().await;
    }
    agent.process().stop().await?;
    server.process().stop().await?;
    drop(folder);
    timeline.says("cleaned up", "no process and no file is left");
    println!("\nTo look around: cargo demo -- --keep; other clouds: cargo demo -- --cloud gcp");
    println!("Four servers on three levels: cargo demo -- --nested");
    Ok(())
}

/// Says what can be tried: every line works as it stands, in any shell.
fn print_commands(
    folder: &Folder,
    server: &Server,
    agent: &Agent,
    host: &str,
) -> anyhow::Result<()> {
    let programs = Binaries::find()?;
    let of = |program: &Path, words: &str, socket: &Path| {
        format!("  {} {words} -socketPath {}", program.display(), socket.display())
    };
    let on_server = |words: &str| of(&programs.server, words, server.socket());
    let on_agent = |words: &str| of(&programs.agent, words, agent.socket());
    let id = format!("spiffe://{TRUST_DOMAIN}/another");
    let selector = format!("unix:uid:{}", User::current().uid);
    let lines = [
        on_server("agent list"),
        on_server("entry show"),
        on_server("bundle show"),
        on_agent("api fetch x509"),
        on_agent(&format!("api fetch jwt -audience {AUDIENCE}")),
        on_server(&format!("entry create -parentID {host} -spiffeID {id} -selector {selector}")),
        on_agent("api watch"),
        format!("  cat {}/*.conf", folder.path().display()),
    ];
    println!(
        "\nBoth run until Ctrl-C. To try, in another terminal:\n\n{}\n\nFor programs with a SPIFFE \
         library:\n\n  export SPIFFE_ENDPOINT_SOCKET={}\n",
        lines.join("\n"),
        agent.endpoint()
    );
    Ok(())
}

/// Says what happened, and when.
struct Timeline(Instant);

impl Timeline {
    fn begin() -> Self {
        Self(Instant::now())
    }

    fn says(&self, what: &str, how: &str) {
        let seconds = self.0.elapsed().as_secs_f64();
        println!("  {seconds:>6.2} s  {what:<20}  {how}");
    }
}
