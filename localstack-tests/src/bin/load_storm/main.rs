//! A boot storm: so many new instances of one AWS account and region attest at the same moment to
//! one real `spire-server`, while a small AWS answers slowly and throttles.
//!
//! ```text
//! cargo build --release --bin spire-server --bin load_storm
//! target/release/load_storm --instances 1000
//! ```
//!
//! The instances' keys, requests and documents are made before. Each attests once, over a
//! connection of its own, and none tries again. Each has an address of its own in 127.0.0.0/8, or
//! all have the same one, as behind a NAT.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use futures::future::join_all;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use spire_fakes::aws::{Aws, HOME_ACCOUNT, Instance, RegionSigner};
use spire_localstack_tests::load::{Node, Nodes, Server, Table, Times};

const REGION: &str = "us-west-2";

/// The address of the first instance.
const FIRST_ADDRESS: u32 = Ipv4Addr::new(127, 1, 0, 0).to_bits();

/// When the server's memory is looked at, after the last connection has closed.
const REST: Duration = Duration::from_secs(10);

/// Boots instances against a server in a temporary folder and prints what it cost.
#[derive(Parser)]
struct Flags {
    /// Instances that boot at once.
    #[arg(long, default_value_t = 1_000)]
    instances: u32,
    /// How long AWS takes for an answer, in milliseconds.
    #[arg(long, default_value_t = 50)]
    delay: u64,
    /// How many requests a second AWS answers; the others it throttles.
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
    /// Whether all come from one address.
    #[arg(long)]
    one_address: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let flags = Flags::parse();
    allow_connections(u64::from(flags.instances) + 1024)?;
    let aws = Aws::start().await;
    aws.server().delay(Duration::from_millis(flags.delay));
    let web = instance();
    aws.launch(web.fleet(flags.instances));
    {
        let mut world = aws.world();
        let profile = (HOME_ACCOUNT.to_owned(), "web".to_owned());
        world.profiles.insert(profile, vec![format!("arn:aws:iam::{HOME_ACCOUNT}:role/web")]);
        world.rate = Some(flags.rate);
    }
    let certificates = tempfile::tempdir()?;
    let signer = RegionSigner::shared(REGION);
    signer.write(certificates.path())?;
    let server = Server::start_with(&format!(
        r#"NodeAttestor "aws_iid" {{ plugin_data {{
            access_key_id = "AKIAEXAMPLE"
            secret_access_key = "secret"
            certificates_dir = "{}"
            {}
        }} }}"#,
        certificates.path().display(),
        aws.endpoints()
    ))
    .await?;
    let nodes = Nodes::of(&server);
    let mut instances = Vec::new();
    for instance in web.fleet(flags.instances) {
        let evidence = signer.evidence(&instance, false).payload();
        instances.push(Node::new("aws_iid", evidence).await?);
    }

    eprintln!("{} instances boot", flags.instances);
    let (before, cpu_before) = (server.process.resident()?, server.process.cpu()?);
    let begin = Instant::now();
    let booted = join_all((FIRST_ADDRESS..).zip(&instances).map(|(address, instance)| {
        let address = if flags.one_address { FIRST_ADDRESS } else { address };
        let attested = nodes.attest_from(Ipv4Addr::from_bits(address), instance);
        async { (attested.await.map(drop), begin.elapsed()) }
    }))
    .await;
    let wall = begin.elapsed();
    let cpu = server.process.cpu()? - cpu_before;
    let peak = server.process.peak()?;
    tokio::time::sleep(REST).await;
    let rest = server.process.resident()?;

    let refused: Vec<_> = booted.iter().filter_map(|(agent, _)| agent.as_ref().err()).collect();
    let attested = Times::new(
        booted.iter().filter(|(agent, _)| agent.is_ok()).map(|(_, after)| *after).collect(),
    );
    let mut figures = Table::of_figures();
    figures.add("attested at the first try", format!("{} of {}", attested.count(), booted.len()));
    figures.add("until the last had its answer", format!("{:.2} s", wall.as_secs_f64()));
    figures.add_times("until one was attested", &attested);
    figures.add("p99 of that", format!("{:.2} s", attested.quantile(0.99).as_secs_f64()));
    let each = cpu.as_secs_f64() * 1e3 / f64::from(flags.instances.max(1));
    figures.add("CPU of the server for each", format!("{each:.2} ms"));
    for (action, count) in aws.counts() {
        figures.add(&format!("calls of {action}"), count.to_string());
    }
    figures.add_memory("resident before", before);
    figures.add_memory("resident at most", peak);
    figures.add_memory(&format!("resident {} s later", REST.as_secs()), rest);
    println!("{figures}");
    server.process.stop().await?;
    match refused.first() {
        None => Ok(()),
        Some(error) => anyhow::bail!("{} were refused, the first: {error:#}", refused.len()),
    }
}

/// The instance that all are like: with a profile, tags and a security group.
fn instance() -> Instance {
    let mut instance = Instance::new(HOME_ACCOUNT, REGION, "i-0");
    instance.profile = Some(format!("arn:aws:iam::{HOME_ACCOUNT}:instance-profile/web"));
    instance.tags = vec![("Name".to_owned(), "web".to_owned())];
    instance.groups = vec![("sg-01234567".to_owned(), "web".to_owned())];
    instance
}

/// Lets this process and the server, which inherits it, hold so many files open.
fn allow_connections(files: u64) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < files) {
        let maximum = limit.maximum.map(|maximum| maximum.max(files));
        setrlimit(Resource::Nofile, Rlimit { current: Some(files), maximum }).with_context(
            || format!("cannot hold {files} files open; raise the limit with ulimit -n"),
        )?;
    }
    Ok(())
}
