//! The rows of the SPIFFE standards, the tests that carry their numbers, and the page that lists
//! both say the same.
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What a name of a test may carry before the numbers of rows.
const FAMILIES: [&str; 11] =
    ["id", "x509", "jwt", "bnd", "we", "wl", "fed", "stb", "wit", "be", "brk"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// Every row, and whether it binds what is built here.
fn rows() -> BTreeMap<String, bool> {
    let text = read("localstack-tests/data/conformance-rows.tsv");
    let row = |line: &str| {
        let [row, binding, asks] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("three columns: {line}")
        };
        assert!(!asks.is_empty() && matches!(binding, "yes" | "no"), "{line}");
        (row.to_owned(), binding == "yes")
    };
    text.lines().skip(1).map(row).collect()
}

/// The rows that the name of a test carries: `x509_01_13_id_22_the_leaf` carries three.
fn carried(name: &str) -> Vec<String> {
    let mut rows = Vec::new();
    let mut family = None;
    for part in name.split('_') {
        let is_number = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        match family {
            _ if FAMILIES.contains(&part) => family = Some(part.to_uppercase()),
            Some(ref family) if is_number => rows.push(format!("{family}-{part}")),
            _ => break,
        }
    }
    rows
}

/// All Rust files of the workspace.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, found);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

/// Every row that tests carry, with their names.
fn tested() -> BTreeMap<String, BTreeSet<String>> {
    let mut files = Vec::new();
    sources(&root(), &mut files);
    let mut tested = BTreeMap::<_, BTreeSet<_>>::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (at, line) in lines.iter().enumerate() {
            let name = line.trim_start_matches("async ").strip_prefix("fn ");
            let Some(name) = name.and_then(|rest| rest.split('(').next()) else { continue };
            let rows = carried(name);
            let is_test = lines[..at]
                .iter()
                .rev()
                .take(3)
                .any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"));
            assert!(rows.is_empty() || is_test, "{name} carries rows but is no test");
            for row in rows {
                tested.entry(row).or_default().insert(name.to_owned());
            }
        }
    }
    tested
}

/// The cells of each table row below a heading of the page.
fn table(page: &str, heading: &str) -> Vec<Vec<String>> {
    let (_, below) = page.split_once(&format!("\n## {heading}\n")).expect(heading);
    let section = below.split("\n## ").next().unwrap();
    let cells =
        |line: &str| line.trim_matches('|').split(" | ").map(|it| it.trim().to_owned()).collect();
    section.lines().filter(|line| line.starts_with("| ")).skip(1).map(cells).collect()
}

/// `WIT-01 to WIT-20` as its rows.
fn range(text: &str) -> Vec<String> {
    let (first, last) = text.split_once(" to ").unwrap_or((text, text));
    let (family, first) = first.rsplit_once('-').unwrap();
    let (same, last) = last.rsplit_once('-').unwrap();
    assert_eq!(family, same, "{text}");
    let numbers = first.parse::<u8>().unwrap()..=last.parse().unwrap();
    numbers.map(|number| format!("{family}-{number:02}")).collect()
}

#[test]
fn each_row_that_binds_is_tested_or_waits() {
    let (rows, tested) = (rows(), tested());
    let page = read("docs/conformance.md");
    let waits: BTreeSet<String> =
        table(&page, "Not there yet").iter().flat_map(|cells| range(&cells[0])).collect();
    for row in tested.keys().chain(&waits) {
        assert!(rows.contains_key(row), "there is no row {row}");
    }
    let binding = rows.iter().filter(|(_, binds)| **binds).map(|(row, _)| row);
    for row in binding {
        match (tested.contains_key(row), waits.contains(row)) {
            (false, false) => panic!("no test carries {row}, and it does not wait"),
            (true, true) => panic!("{row} has a test: docs/conformance.md need not let it wait"),
            _ => {}
        }
    }
    assert!(rows.len() > 300 && tested.len() > 120, "{} rows, {} tested", rows.len(), tested.len());
}

#[test]
fn the_page_lists_the_tests_of_each_row() {
    let page = read("docs/conformance.md");
    let listed: BTreeMap<String, BTreeSet<String>> = table(&page, "Tested")
        .into_iter()
        .map(|cells| {
            let names = cells[2].split("<br>").map(|name| name.trim_matches('`').to_owned());
            (cells[0].clone(), names.collect())
        })
        .collect();
    let tested = tested();
    for row in tested.keys() {
        assert!(listed.contains_key(row), "docs/conformance.md does not list {row}");
    }
    for (row, names) in &listed {
        let gone: Vec<_> = names
            .iter()
            .filter(|name| !tested.get(row).is_some_and(|tests| tests.contains(*name)))
            .collect();
        assert!(gone.is_empty(), "docs/conformance.md, {row}: no test is called {gone:?}");
    }
}

#[test]
fn the_page_names_all_rows_that_bind_others() {
    let page = read("docs/conformance.md");
    let (_, others) = page.split_once("\n## Binds others\n").unwrap();
    let named: BTreeSet<_> = others
        .split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '-'))
        .filter(|word| rows().contains_key(*word))
        .map(str::to_owned)
        .collect();
    let expected: BTreeSet<_> =
        rows().into_iter().filter(|(_, binds)| !binds).map(|(row, _)| row).collect();
    assert_eq!(named, expected);
}

#[test]
fn bnd_01_operators_are_told_what_no_program_can_check() {
    let page = read("docs/conformance.md");
    let (_, section) = page.split_once("\n## What operators see to\n").unwrap();
    for row in ["BND-01", "JWT-12", "JWT-23"] {
        assert!(section.contains(row), "{row}");
    }
    assert!(page.contains("665a28f3253e"), "the revision that is implemented");
}

#[test]
fn jwt_12_examples_ask_for_one_audience() {
    let mut pages = vec![root().join("README.md")];
    documents(&root().join("docs"), &mut pages);
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for after in text.split("-audience ").skip(1) {
            let value = after.split_whitespace().next().unwrap_or_default();
            let shown = page.display();
            assert!(!value.contains(','), "{shown} shows several audiences: {value}");
        }
        let several = text.lines().find(|line| line.matches("-audience ").count() > 1);
        assert_eq!(several, None, "{}", page.display());
    }
}

fn documents(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            documents(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}
