//! The command lines against the table of SPIRE's: every command, flag, kind of value and default.
//!
//! Commands that wait for their services stand in a list. One that is there and is still on the
//! list fails the test, so that the list can only shrink.
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

use std::collections::{BTreeMap, BTreeSet};

use spire_core::command::{Command, Program};

const TABLE: &str = include_str!("../data/cli-flags.tsv");

const PROGRAMS: [Program; 2] = [spire_server::cli::PROGRAM, spire_agent::cli::PROGRAM];

/// Commands of services that are still to come.
const WAITING: &[(&str, &str)] = &[
    ("spire-server", "federation create"),
    ("spire-server", "federation delete"),
    ("spire-server", "federation list"),
    ("spire-server", "federation refresh"),
    ("spire-server", "federation show"),
    ("spire-server", "federation update"),
];

/// Commands that SPIRE does not have.
const OURS: &[(&str, &str)] = &[
    ("spire-agent", "evidence collect"),
    ("spire-server", "authority show"),
    ("spire-server", "datastore check"),
    ("spire-server", "datastore copy"),
    ("spire-server", "evidence verify"),
];

/// Commands that the table has under another name: `api fetch` alone is `api fetch x509`.
const SAME_AS: &[(&str, &str, &str)] = &[("spire-agent", "api fetch", "api fetch x509")];

/// What a flag takes, and its default.
type Flags = BTreeMap<String, (String, String)>;

/// The flags of each command of each program.
fn table() -> BTreeMap<(&'static str, &'static str), Flags> {
    let mut table = BTreeMap::<_, Flags>::new();
    for line in TABLE.lines().skip(1) {
        let columns: Vec<_> = line.split('\t').collect();
        let [program, command, flag, argument, default] = columns[..] else {
            panic!("five columns are expected: {line:?}");
        };
        let flags = table.entry((program, command)).or_default();
        flags.insert(flag.to_owned(), (argument.to_owned(), default.to_owned()));
    }
    assert!(table.len() > 50, "the table has {} commands only", table.len());
    table
}

/// The flags that help shows; old spellings are ours to keep.
fn shown_flags(command: &Command) -> Flags {
    let flags = command.all_flags().into_iter().filter(|flag| !flag.former);
    flags
        .map(|flag| (flag.name.to_owned(), (flag.argument().to_owned(), flag.default.to_owned())))
        .collect()
}

#[test]
fn every_command_has_the_flags_of_the_table() {
    let mut table = table();
    for (program, words, original) in SAME_AS {
        let flags = table[&(*program, *original)].clone();
        table.insert((program, words), flags);
    }
    let waiting = BTreeSet::from_iter(WAITING.iter().copied());
    let mut wrong = Vec::new();
    for program in PROGRAMS {
        for command in program.sorted_commands() {
            let name = (program.name, command.words);
            let flags = shown_flags(command);
            if waiting.contains(&name) {
                wrong.push(format!("{name:?} is there: take it off the list"));
            }
            match table.remove(&name) {
                None if OURS.contains(&name) => {}
                None => wrong.push(format!("{name:?} is not in the table")),
                Some(expected) if expected != flags => {
                    wrong.push(format!("{name:?} has {flags:?}, but should have {expected:?}"));
                }
                Some(_) => {}
            }
        }
    }
    let missing = BTreeSet::from_iter(table.into_keys());
    for name in missing.difference(&waiting) {
        wrong.push(format!("{name:?} is missing"));
    }
    for name in waiting.difference(&missing) {
        wrong.push(format!("{name:?} is on the list, but is no missing command of the table"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_command_says_what_it_is_for() {
    for command in PROGRAMS.iter().flat_map(Program::sorted_commands) {
        assert!(command.synopsis.ends_with('.'), "{}: {}", command.words, command.synopsis);
        for flag in command.all_flags() {
            assert!(!flag.usage.is_empty(), "{} -{}", command.words, flag.name);
        }
    }
}
