//! What a copy may ask of the machine: memory that does not grow with the database, and no folder that
//! can be written where nothing is to be written.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio::io::{AsyncBufReadExt, BufReader};

use super::*;
use crate::copy::command::{command, command_without_rights};

/// By how many KiB a copy of more entries may grow over one of [`FEW`]. These are more than it
/// reads at a time; to hold 8,000 entries more takes twice as much.
const GROWTH_KIB: u64 = 5 * 1024;
const FEW: u32 = 2_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_21_memory_does_not_grow_with_10_000_entries() {
    assert_bounded(10_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes where the program is not optimised"]
async fn case_21_memory_does_not_grow_with_1_000_000_entries() {
    assert_bounded(1_000_000).await;
}

async fn assert_bounded(entries: u32) {
    let (few, many) = (peak_kib(FEW).await, peak_kib(entries).await);
    assert!(many < few + GROWTH_KIB, "{FEW} entries: {few} KiB, {entries}: {many} KiB");
}

/// The most memory that the command had which copies so many entries with three selectors each, and
/// an agent for every hundred.
async fn peak_kib(entries: u32) -> u64 {
    let spire = spire(Kind::Sqlite, 25).await;
    let fill = format!(
        "INSERT INTO registered_entries (id, entry_id, spiffe_id, parent_id, ttl)
           WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {entries})
           SELECT i, 'e' || i, '{OWN}/w/' || i, '{OWN}/spire/agent/x509pop/' || (i / 100), 0 FROM n;
         INSERT INTO selectors (registered_entry_id, type, value)
           SELECT id, 'unix', 'uid:' || id FROM registered_entries UNION ALL
           SELECT id, 'unix', 'gid:' || (id / 1000) FROM registered_entries UNION ALL
           SELECT id, 'unix', 'path:/usr/bin/service-' || id FROM registered_entries;
         INSERT INTO attested_node_entries (id, spiffe_id, data_type, serial_number, expires_at)
           SELECT id, '{OWN}/spire/agent/x509pop/' || id, 'x509pop', '' || id,
           '2100-01-01 00:00:00+00:00' FROM registered_entries WHERE id <= {entries} / 100"
    );
    spire.execute(&fill).await.unwrap();
    // A server's cache is not in the memory of the command.
    let target = Location::new(Kind::Postgres).await;
    let mut child = command(&source(&spire), &target.settings()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id().unwrap());
    let mut told = BufReader::new(child.stderr.take().unwrap()).lines();
    let (mut peak, mut lines) = (0, Vec::new());
    while let Some(line) = told.next_line().await.unwrap() {
        // At the very end it may be gone.
        let known = std::fs::read_to_string(&status).unwrap_or_default();
        let known = known.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB"));
        peak = known.map_or(peak, |kib| kib.trim().parse().unwrap());
        lines.push(line);
    }
    assert!(child.wait().await.unwrap().success(), "{lines:?}");
    for step in ["copying", "comparing"] {
        let done = format!("{step} entries: {entries} of {entries}");
        assert!(lines.contains(&done), "{lines:?}");
    }
    let store = Store::open(&target.settings()).await.unwrap();
    let count = store.count_entries(&EntryFilter::default()).await;
    assert_eq!(count, Ok(entries.into()));
    assert_eq!(store.count_nodes(&NodeFilter::default()).await, Ok((entries / 100).into()));
    store.close().await;
    peak
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_19_a_folder_that_cannot_be_written_is_told() {
    let mut spire = spire(Kind::Sqlite, 25).await;
    spire.entry("e", &format!("{OWN}/e"), &format!("{OWN}/spire/agent/a"), &["a:1"], &[]);
    spire.write().await.unwrap();
    let before = spire.fingerprint().await.unwrap();
    let file = spire.file().unwrap();
    let folder = file.parent().unwrap();
    let target = Location::new(Kind::Sqlite).await;
    let Location::File(place) = &target else { panic!("a file is in a folder") };

    for (shut, told) in [
        (folder, "check the permissions of the file and its folder"),
        (place.path(), "Permission denied"),
    ] {
        set_mode(shut, 0o555);
        let (from, to) = (source(&spire), target.settings());
        // Who runs the test may be root, who may write everywhere.
        let output = match std::fs::File::create(shut.join("attempt")) {
            Ok(_) => {
                std::fs::remove_file(shut.join("attempt")).unwrap();
                command_without_rights(&from, &to).output().await
            }
            Err(_) => command(&from, &to).output().await,
        };
        set_mode(shut, 0o755);
        let output = output.unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        let path = shut.display();
        assert!(error.starts_with(&format!("Error: unable to open the database at \"{path}/")));
        assert!(error.contains(told), "{error}");
    }
    assert_eq!(spire.fingerprint().await.unwrap(), before);
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    run(&order(source(&spire), &target)).await.unwrap();
}

fn set_mode(folder: &Path, mode: u32) {
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode)).unwrap();
}
