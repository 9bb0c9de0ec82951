//! The demo as a newcomer runs it: what it prints works, and nothing of it is left.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use spire_localstack_tests::binaries::{BIN_DIR, Binaries};
use spire_localstack_tests::process::Process;
use spire_localstack_tests::{Folder, command};

const STEPS: [&str; 7] = [
    "server started",
    "entry created",
    "node attested",
    "X.509-SVID fetched",
    "X.509-SVID verified",
    "JWT-SVID fetched",
    "JWT-SVID verified",
];

#[tokio::test]
async fn the_demo_shows_every_step_in_every_cloud_and_leaves_nothing() {
    for (flags, shown) in [
        (&[][..], "aws_iid:tag:Role:web"),
        (&["--cloud", "gcp"], "gcp_iit:instance-name:web-1"),
        (&["--cloud", "azure"], "azure_imds:vm-name:web"),
        (&["--cloud", "none"], "spire-agent run -joinToken"),
    ] {
        let folder = Folder::new().unwrap();
        let mut demo = start(&folder, programs(), flags);
        assert!(demo.ended().await.unwrap().success(), "{}", demo.log());
        let log = demo.log();
        assert!(log.contains(shown), "{shown} is not in {log}");
        assert_in_order(&log, STEPS.into_iter().chain(["cleaned up"]));
        assert_nothing_left(&folder);
    }
}

#[tokio::test]
async fn the_demo_of_four_servers_shows_every_step_and_leaves_nothing() {
    let folder = Folder::new().unwrap();
    let mut demo = start(&folder, programs(), &["--nested"]);
    assert!(demo.ended().await.unwrap().success(), "{}", demo.log());
    let log = demo.log();
    let places = ["root", "middle", "left leaf", "right leaf"];
    let steps = ["X.509-SVID fetched", "X.509-SVID verified", "JWT-SVID verified", "cleaned up"];
    assert_in_order(&log, places.map(|name| format!("server and agent      {name}")));
    assert_in_order(&log, steps);
    assert_nothing_left(&folder);
}

#[tokio::test]
async fn what_a_kept_demo_prints_works_and_an_interrupt_ends_it_all() {
    let folder = Folder::new().unwrap();
    let mut demo = start(&folder, programs(), &["--keep"]);
    demo.logged("export SPIFFE_ENDPOINT_SOCKET=").await.unwrap();
    let log = demo.log();
    let commands: Vec<_> =
        log.lines().filter(|line| line.starts_with("  /") || line.starts_with("  cat ")).collect();
    assert_eq!(commands.len(), 8, "{log}");
    for line in commands {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("exec {line}"));
        if line.contains(" api watch ") {
            // It ends only when it is told to.
            let watch = Process::start("api watch", &mut shell).unwrap();
            watch.logged("spiffe://example.org/demo").await.unwrap();
        } else {
            let said = command::run(shell).await.unwrap().success().unwrap();
            assert_ne!(said, "", "{line}");
        }
    }
    demo.signal(Signal::INT).unwrap();
    assert!(demo.ended().await.unwrap().success(), "{}", demo.log());
    assert_nothing_left(&folder);
}

#[tokio::test]
async fn a_demo_that_fails_says_why_and_leaves_nothing() {
    let (folder, broken) = (Folder::new().unwrap(), Folder::new().unwrap());
    symlink(programs().join("spire-server"), broken.join("spire-server")).unwrap();
    symlink("/bin/false", broken.join("spire-agent")).unwrap();
    let mut demo = start(&folder, broken.path(), &[]);
    assert!(!demo.ended().await.unwrap().success());
    let log = demo.log();
    assert!(log.contains("entry created") && log.contains("spire-agent ended before"), "{log}");
    assert_nothing_left(&folder);
}

fn programs() -> &'static Path {
    Binaries::find().unwrap().server.parent().unwrap()
}

/// The demo with everything that it makes in `folder`.
fn start(folder: &Folder, programs: &Path, flags: &[&str]) -> Process {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_demo"));
    demo.args(flags).env("TMPDIR", folder.path()).env(BIN_DIR, programs);
    Process::start("demo", &mut demo).unwrap()
}

/// One step after the other is in the log.
fn assert_in_order(log: &str, steps: impl IntoIterator<Item = impl AsRef<str>>) {
    let mut rest = log;
    for step in steps {
        let step = step.as_ref();
        rest = rest.split_once(step).unwrap_or_else(|| panic!("{step}: {log}")).1;
    }
}

/// Neither a file nor a process that names one.
fn assert_nothing_left(folder: &Folder) {
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let path = folder.path().display().to_string();
    for process in fs::read_dir("/proc").unwrap() {
        let words = fs::read(process.unwrap().path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        assert!(!words.contains(&path), "left behind: {words}");
    }
}
