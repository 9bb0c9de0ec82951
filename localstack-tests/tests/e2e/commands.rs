//! The commands of operators and workloads, against a server and an agent that run. What each
//! prints is told in detail beside the programs; here they are seen to do it.

use std::fs::{self, File};
use std::process::Command;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;
use spire_localstack_tests::binaries::Binaries;
use spire_localstack_tests::command::{self, Answer};
use spire_localstack_tests::process::PATIENCE;
use spire_localstack_tests::server::{TRUST_DOMAIN, agent_path, entry};
use spire_localstack_tests::user::User;
use spire_localstack_tests::{Agent, AgentFile, Folder, Process, Server, ServerFile, packages};

/// A command to the server, in words that a shell would split.
async fn server(server: &Server, line: &str) -> String {
    server.command(&Vec::from_iter(line.split(' '))).await.unwrap()
}

/// A command to the server, however it ends.
async fn server_answers(server: &Server, line: &str) -> Answer {
    let mut command = User::current().command(&Binaries::find().unwrap().server).unwrap();
    command.args(line.split(' ')).arg("--socketPath").arg(server.socket());
    command::run(command).await.unwrap()
}

/// A command to the agent, by the user who runs this.
async fn agent_answers(agent: &Agent, line: &str) -> Answer {
    agent.command(User::current(), &Vec::from_iter(line.split(' '))).await.unwrap()
}

async fn agent(agent: &Agent, line: &str) -> String {
    agent_answers(agent, line).await.success().unwrap()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// Asks until the agent has heard of an entry, and says what it printed.
async fn fetched(asked: &Agent, line: &str) -> String {
    let began = Instant::now();
    loop {
        let answer = agent_answers(asked, line).await;
        if answer.code == Some(0) {
            return answer.stdout;
        }
        assert!(began.elapsed() < PATIENCE, "{answer:?}");
    }
}

#[tokio::test]
async fn operators_run_a_server() {
    let folder = Folder::new().unwrap();
    let running = Server::start(&folder, &ServerFile::default()).await.unwrap();
    let to = &running;

    assert_eq!(server(to, "healthcheck").await, "Server is healthy.\n");
    assert_eq!(server(to, "logger set -level debug").await, levels("debug", "info"));
    assert_eq!(
        json(&server(to, "logger get --output=json").await),
        serde_json::json!({"current_level": "DEBUG", "launch_level": "INFO"})
    );
    assert_eq!(server(to, "logger reset").await, levels("info", "info"));
    let info = json(&server(to, "debug getinfo -output json").await);
    assert_eq!((&info["agents_count"], &info["entries_count"]), (&0.into(), &0.into()));

    // Entries from a file and from the standard input.
    let entries = |path: &str| {
        format!(
            r#"{{"entries":[{{"selectors":[{{"type":"unix","value":"uid:1"}}],
            "parent_id":"spiffe://example.org/host","spiffe_id":"spiffe://example.org/{path}"}}]}}"#
        )
    };
    let file = folder.join("entries.json");
    fs::write(&file, entries("of-file")).unwrap();
    let created = server(to, &format!("entry create -data {}", file.display())).await;
    assert!(created.contains("SPIFFE ID               : spiffe://example.org/of-file\n"));
    fs::write(&file, entries("of-input")).unwrap();
    let mut create = User::current().command(&Binaries::find().unwrap().server).unwrap();
    create.args(["entry", "create", "-data", "-", "-output", "json", "-socketPath"]);
    create.arg(to.socket()).stdin(File::open(&file).unwrap());
    let created = json(&command::run(create).await.unwrap().success().unwrap());
    assert_eq!(created["results"][0]["entry"]["spiffe_id"]["path"], "/of-input");
    assert_eq!(server(to, "entry count").await, "2 registration entries\n");
    let again = server_answers(to, &format!("entry create -data {}", file.display())).await;
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("(code: AlreadyExists, msg: \"similar entry already exists\")"));

    // Bundles of other domains.
    let pem = folder.join("partner.pem");
    fs::write(&pem, server(to, "bundle show -format pem").await).unwrap();
    let set = format!("bundle set --id spiffe://partner.test --path {}", pem.display());
    assert_eq!(server(to, &set).await, "bundle set.\n");
    assert_eq!(server(to, "bundle count").await, "2 bundles\n");
    let listed = server(to, "bundle list").await;
    assert!(listed.starts_with(&format!("{0}\n* partner.test\n{0}\n-----BEGIN", "*".repeat(40))));
    assert_eq!(server(to, "bundle list -id partner.test").await, fs::read_to_string(&pem).unwrap());
    assert_eq!(server(to, "bundle delete -id partner.test").await, "bundle deleted.\n");
    assert_eq!(json(&server(to, "bundle count -output json").await)["count"], 1);
    let unknown = server_answers(to, "bundle list -id partner.test").await;
    let told = "Error: rpc error: code = NotFound desc = bundle not found\n";
    assert_eq!((unknown.code, unknown.stderr.as_str()), (Some(1), told));

    // SVIDs made by hand.
    let minted = folder.join("minted");
    fs::create_dir(&minted).unwrap();
    let id = format!("spiffe://{TRUST_DOMAIN}/minted");
    server(to, &format!("x509 mint -spiffeID {id} -write {}", minted.display())).await;
    let mut verify = packages::command("openssl", "openssl").unwrap();
    verify.args(["verify", "-CAfile"]).arg(minted.join("bundle.pem"));
    verify.arg("-untrusted").arg(minted.join("svid.pem")).arg(minted.join("svid.pem"));
    assert!(command::run(verify).await.unwrap().success().unwrap().ends_with(": OK\n"));
    let token = server(to, &format!("jwt mint -spiffeID {id} -audience backend")).await;
    assert_eq!(token.trim().split('.').count(), 3, "{token}");
    let refused = server_answers(to, "jwt mint -spiffeID no-id -audience backend").await;
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""));
}

fn levels(now: &str, launch: &str) -> String {
    format!("Logger Level : {now}\nLaunch Level : {launch}\n\n")
}

#[tokio::test]
async fn operators_run_an_agent_and_workloads_ask_it() {
    let folder = Folder::new().unwrap();
    let running = Server::start(&folder, &ServerFile::default()).await.unwrap();
    let token = running.join_token().await.unwrap();
    let admin = folder.join("admin.sock");
    let file = AgentFile {
        agent: format!("admin_socket_path = {admin:?}\nexperimental {{ sync_interval = \"1s\" }}"),
        ..AgentFile::default()
    };
    let mut asked = Agent::start(&folder, &running, &token, &file).await.unwrap();
    let id = format!("spiffe://{TRUST_DOMAIN}{}", agent_path(&token));

    // What the server knows of it.
    assert_eq!(server(&running, "agent count").await, "1 attested agent\n");
    assert!(server(&running, "agent list").await.contains(&format!("SPIFFE ID         : {id}\n")));
    let shown = json(&server(&running, &format!("agent show -spiffeID {id} -output json")).await);
    assert_eq!(shown["attestation_type"], "join_token");
    let serial = shown["x509svid_serial_number"].as_str().unwrap();
    assert!(!serial.is_empty());

    // What it knows of itself.
    assert_eq!(agent(&asked, "healthcheck").await, "Agent is healthy.\n");
    let on_admin = async |line: &str| {
        let mut command = User::current().command(&Binaries::find().unwrap().agent).unwrap();
        command.args(line.split(' ')).arg("--socketPath").arg(&admin);
        command::run(command).await.unwrap().success().unwrap()
    };
    assert_eq!(on_admin("logger set -level debug").await, levels("debug", "info"));
    assert_eq!(on_admin("logger get").await, levels("debug", "info"));
    assert_eq!(on_admin("logger reset").await, levels("info", "info"));
    let info = json(&on_admin("debug getinfo -output json").await);
    assert_eq!(info["svid_chain"][0]["id"]["path"], agent_path(&token));

    // A workload, and one that watches.
    let selector = format!("unix:uid:{}", User::current().uid);
    let created = running.create_entry(entry(&agent_path(&token), "/w", &selector)).await.unwrap();
    let pretty = fetched(&asked, "api fetch").await;
    assert!(pretty.contains("\nSPIFFE ID:\t\tspiffe://example.org/w\n"), "{pretty}");
    let fetched = json(&agent(&asked, "api fetch x509 --output json").await);
    assert_eq!(fetched["svids"][0]["spiffe_id"], "spiffe://example.org/w");
    let tokens = json(&agent(&asked, "api fetch jwt -audience backend -output json").await);
    let token = tokens[0]["svids"][0]["svid"].as_str().unwrap();
    let validate = format!("api validate jwt -audience backend -output json -svid {token}");
    assert_eq!(json(&agent(&asked, &validate).await)["spiffe_id"], "spiffe://example.org/w");
    let other = agent_answers(&asked, &validate.replace("backend", "frontend")).await;
    assert_eq!((other.code, other.stdout.as_str()), (Some(1), ""));

    let mut watch: Command = User::current().command(&Binaries::find().unwrap().agent).unwrap();
    watch.args(["api", "watch", "-socketPath"]).arg(asked.socket());
    let mut watch = Process::start("api watch", &mut watch).unwrap();
    watch.logged("spiffe://example.org/w").await.unwrap();
    let update = format!(
        "entry update -entryID {} -parentID {id} -spiffeID spiffe://example.org/later -selector \
         {selector}",
        created.id
    );
    server(&running, &update).await;
    watch.logged("spiffe://example.org/later").await.unwrap();
    watch.signal(Signal::INT).unwrap();
    assert_eq!(watch.ended().await.unwrap().code(), Some(1));
    assert!(watch.log().ends_with("rpc error: code = Canceled desc = context canceled\n"));

    // The end of it.
    let banned = server(&running, &format!("agent ban -spiffeID {id}")).await;
    assert_eq!(banned, "Agent banned successfully\n");
    assert_eq!(asked.process().ended().await.unwrap().code(), Some(1));
    let log = asked.process().log();
    assert!(log.contains("Agent is banned: removing SVID and shutting down"), "{log}");
    let listed = server(&running, "agent list -banned true").await;
    assert!(listed.contains("Banned            : true\n"), "{listed}");
    let evicted = server(&running, &format!("agent evict -spiffeID {id}")).await;
    assert_eq!(evicted, "Agent evicted successfully\n");
    assert_eq!(server(&running, "agent list").await, "No attested agents found\n");
    let gone = agent_answers(&asked, "healthcheck").await;
    let told = "Agent is unhealthy: unable to determine health\n";
    assert_eq!((gone.code, gone.stderr.as_str()), (Some(1), told));
}

#[tokio::test]
async fn an_agent_that_can_attest_nobody_says_so() {
    let folder = Folder::new().unwrap();
    let running = Server::start(&folder, &ServerFile::default()).await.unwrap();
    let token = running.join_token().await.unwrap();
    // No program is that small.
    let unix = "discover_workload_path = true\nworkload_size_limit = 1".to_owned();
    let file = AgentFile { unix, ..AgentFile::default() };
    let mut asked = Agent::start(&folder, &running, &token, &file).await.unwrap();
    let unhealthy = agent_answers(&asked, "healthcheck -verbose").await;
    let told = "Agent is unhealthy: agent returned status \"NOT_SERVING\"\n";
    assert_eq!((unhealthy.code, unhealthy.stderr.as_str()), (Some(1), told));
    assert_eq!(unhealthy.stdout, "Checking agent health...\n");
    asked.process().logged("exceeds size limit").await.unwrap();
}

#[tokio::test]
async fn each_user_gets_what_is_his_and_no_more() {
    let folder = Folder::new().unwrap();
    let running = Server::start(&folder, &ServerFile::default()).await.unwrap();
    let token = running.join_token().await.unwrap();
    let users = [(User::current(), "/own"), (User::other().unwrap(), "/of-other")];
    for (user, path) in users {
        let selector = format!("unix:uid:{}", user.uid);
        running.create_entry(entry(&agent_path(&token), path, &selector)).await.unwrap();
    }
    let mut asked = Agent::start(&folder, &running, &token, &AgentFile::default()).await.unwrap();
    fetched(&asked, "api fetch x509").await;
    for (user, path) in users {
        let id = format!("spiffe://{TRUST_DOMAIN}{path}");
        let fetch = ["api", "fetch", "x509", "-output", "json"];
        let answer = asked.command(user, &fetch).await.unwrap().success().unwrap();
        let svids = json(&answer)["svids"].as_array().unwrap().clone();
        assert_eq!(svids.iter().map(|svid| &svid["spiffe_id"]).collect::<Vec<_>>(), [&id]);
        for (_, wanted) in users {
            let wanted = format!("spiffe://{TRUST_DOMAIN}{wanted}");
            let fetch = ["api", "fetch", "jwt", "-audience", "backend", "-spiffeID", &wanted];
            let answer = asked.command(user, &fetch).await.unwrap();
            if wanted == id {
                answer.success().unwrap();
                continue;
            }
            let told = "rpc error: code = PermissionDenied desc = no identity issued\n";
            assert_eq!((answer.code, answer.stderr.as_str()), (Some(1), told));
        }
    }

    // A user without an entry; the operator finds in the log what he had.
    let nobody = User { uid: 60_124, gid: 60_125 };
    let answer = asked.command(nobody, &["api", "fetch", "x509"]).await.unwrap();
    let told = "rpc error: code = PermissionDenied desc = no identity issued\n";
    assert_eq!((answer.code, answer.stderr.as_str()), (Some(1), told));
    let line = asked.process().logged("uid=60124").await.unwrap();
    for part in ["No identity issued", "unix:uid:60124", "unix:gid:60125", "registered=false"] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
}

#[tokio::test]
async fn an_agent_that_expired_is_purged_where_it_can_attest_again() {
    let folder = Folder::new().unwrap();
    let [root_key, root, key, certificate] = ["root.key", "root.crt", "node.key", "node.crt"]
        .map(|name| folder.join(name).display().to_string());
    let openssl = async |line: String| {
        let mut openssl = packages::command("openssl", "openssl").unwrap();
        openssl.args(line.split(' '));
        command::run(openssl).await.unwrap().success().unwrap();
    };
    let new = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1";
    openssl(format!("{new} -subj /CN=root -keyout {root_key} -out {root}")).await;
    let end_entity = "basicConstraints=critical,CA:FALSE -addext keyUsage=digitalSignature";
    let signed = format!("-CA {root} -CAkey {root_key} -keyout {key} -out {certificate}");
    openssl(format!("{new} -subj /CN=node -addext {end_entity} {signed}")).await;
    let attestor =
        format!("NodeAttestor \"x509pop\" {{ plugin_data {{ ca_bundle_path = {root:?} }} }}");
    let server_file = ServerFile {
        server: "agent_ttl = \"8s\"".to_owned(),
        plugins: attestor,
        ..ServerFile::default()
    };
    let running = Server::start(&folder, &server_file).await.unwrap();
    let node_attestor = Some(format!(
        "NodeAttestor \"x509pop\" {{ plugin_data {{\nprivate_key_path = {key:?}\n\
         certificate_path = {certificate:?}\n}} }}"
    ));
    let file = AgentFile { node_attestor, ..AgentFile::default() };
    let mut asked = Agent::start(&folder, &running, "", &file).await.unwrap();
    assert_eq!(server(&running, "agent count -canReattest true").await, "1 attested agent\n");
    assert_eq!(server(&running, "agent purge").await, "No agents to purge.\n");
    asked.process().kill().unwrap();

    let began = Instant::now();
    let dry = loop {
        let said = server(&running, "agent purge -expiredFor 1s -dryRun").await;
        if said != "No agents to purge.\n" {
            break said;
        }
        assert!(began.elapsed() < PATIENCE, "it never expires");
    };
    let start = "Found 1 expired agent\n\n\nAgents that can be purged:\nSPIFFE ID         : ";
    assert!(dry.starts_with(start), "{dry}");
    assert_eq!(server(&running, "agent count").await, "1 attested agent\n");
    let purged = json(&server(&running, "agent purge -expiredFor 1s -output json").await);
    assert_eq!(purged["expired_agents"][0]["deleted"], true);
    assert_eq!(server(&running, "agent count").await, "0 attested agents\n");
}
