//! The command that copies, killed with `SIGKILL`: the source is as it was, the target is empty or
//! done, and the same command once more is all that it takes.

use spire_test_databases::Held;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::command::command;
use super::*;
use crate::each_database;

each_database! {
    a_copy_that_is_killed_in_its_middle_is_made_by_the_next_one,
    a_copy_that_is_killed_at_any_moment_is_made_by_the_next_one,
}

/// The last that is told before journals are copied.
const BEFORE_JOURNALS: &str = "copying join tokens: 3 of 3";

/// The first that is told.
const BEGUN: &str = "copying bundles: 3 of 3";

async fn a_copy_that_is_killed_in_its_middle_is_made_by_the_next_one(kind: Kind) {
    let source = filled(kind).await;
    let before = dump(&source.database).await;
    let target = Fresh::new(kind).await;
    target.store.close().await;
    let obstacle = Obstacle::put(&target.database).await;
    kill_after(BEFORE_JOURNALS, &source.settings, &target.settings).await;
    obstacle.remove(&target.database).await;
    for table in ["bundles", "entries", "entry_selectors", "nodes", "join_tokens", "ca_journals"] {
        let count = format!("SELECT COUNT(*) FROM {table}");
        assert_eq!(target.database.number(&count).await, 0, "{table}");
    }
    assert_eq!(dump(&source.database).await, before);
    let copied = again(&source.settings, &target.settings).await;
    assert!(copied.contains(": copied\n"), "{copied}");
    assert_eq!(dump(&target.database).await, before);
}

/// There were no tables before, and it may have come to its end when it was killed.
async fn a_copy_that_is_killed_at_any_moment_is_made_by_the_next_one(kind: Kind) {
    let source = filled(kind).await;
    let before = dump(&source.database).await;
    let target = Location::new(kind).await;
    kill_after(BEGUN, &source.settings, &target.settings()).await;
    assert_eq!(dump(&source.database).await, before);
    again(&source.settings, &target.settings()).await;
    assert_eq!(dump(&target).await, before);
}

/// What holds up whoever writes journals.
enum Obstacle {
    /// A trigger that counts for longer than anybody waits.
    Trigger,
    /// A lock on their table.
    Lock(Held),
}

impl Obstacle {
    async fn put(database: &Location) -> Self {
        let Location::Server(server) = database else {
            let trigger = "CREATE TRIGGER obstacle BEFORE INSERT ON ca_journals BEGIN \
                           SELECT COUNT(*) FROM entries a, entries b, entries c, entries d; END";
            database.execute(trigger).await;
            return Self::Trigger;
        };
        let lock = match server.database_type() {
            "postgres" => "BEGIN; LOCK TABLE ca_journals IN SHARE MODE",
            _ => "LOCK TABLES ca_journals READ",
        };
        Self::Lock(server.hold(lock).await.unwrap())
    }

    async fn remove(self, database: &Location) {
        match self {
            Self::Trigger => database.execute("DROP TRIGGER obstacle").await,
            Self::Lock(held) => held.close().await.unwrap(),
        }
    }
}

/// Starts the command and kills it when it has told `line`.
async fn kill_after(line: &str, from: &Settings, to: &Settings) {
    let mut child = command(from, to).spawn().unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut seen = Vec::new();
    loop {
        let next = told.next_line().await.unwrap();
        let next = next.unwrap_or_else(|| panic!("it ended before {line:?}: {seen:?}"));
        if next == line {
            break;
        }
        seen.push(next);
    }
    child.kill().await.unwrap();
}

/// Runs the same command to its end; returns what it printed.
async fn again(from: &Settings, to: &Settings) -> String {
    let output = command(from, to).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}
