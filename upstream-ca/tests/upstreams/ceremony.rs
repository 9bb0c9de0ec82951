//! What `docs/upstream-ca.md` says of a root that is offline, command by command.

use std::fs;
use std::process::Command;

use spire_upstream_ca::disk::PLUGIN;

use crate::harness::{Folder, build, mint, now};

const DOCS: &str = include_str!("../../../docs/upstream-ca.md");

#[tokio::test]
async fn what_the_commands_make_is_a_ca_that_signs() {
    let mut sections = DOCS.split("\n## ");
    let section = sections.find(|text| text.starts_with("A root that is offline\n")).unwrap();
    let blocks: Vec<_> =
        section.split("```").filter_map(|text| text.strip_prefix("sh\n")).collect();
    assert_eq!(blocks.len(), 3, "{section}");
    let folder = Folder::new();
    for commands in blocks {
        // Nobody is there to be asked for the passphrase.
        let commands = commands
            .replace("-keyout root.key", "-keyout root.key -passout pass:secret")
            .replace("-CAkey root.key", "-CAkey root.key -passin pass:secret");
        let mut shell = Command::new("sh");
        let output = shell.args(["-ec", &commands]).current_dir(&folder.0).output().unwrap();
        assert!(output.status.success(), "{commands}: {output:?}");
    }
    let root_key = fs::read_to_string(folder.path("root.key")).unwrap();
    assert!(root_key.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));

    let file = |name: &str| folder.path(name);
    let settings = format!(
        "cert_file_path = {:?}\nkey_file_path = {:?}\nbundle_file_path = {:?}",
        file("upstream.crt"),
        file("upstream.key"),
        file("root.crt")
    );
    let clock = now();
    let upstream = build(&PLUGIN, &settings, &clock).unwrap();
    let minted = mint(&folder, &*upstream, &clock).await;
    assert_eq!((minted.chain.len(), minted.roots.len()), (2, 1));
}
