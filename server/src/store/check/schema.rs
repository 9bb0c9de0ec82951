//! Whether all tables and indexes are there that the migrations made.

use std::collections::HashMap;

use super::super::StoreError;
use super::super::database::Connection;
use super::super::dialect::Dialect;
use super::super::sql::Statement;
use super::{Report, Table};

/// An index that the migrations made.
#[derive(Debug, PartialEq, Eq)]
struct Index {
    name: String,
    table: String,
    /// The statement that makes it.
    create: String,
}

/// Notes the tables that are there, and what is missing.
pub(super) async fn look(
    names: &[String],
    connection: &mut Connection,
    report: &mut Report,
) -> Result<(), StoreError> {
    let dialect = connection.dialect();
    let (tables, indexes) = made_by(dialect);
    let mut found = HashMap::new();
    for row in connection.fetch(Statement::new(dialect.indexes)).await? {
        found.insert(row.text(0)?.to_owned(), row.truth(1)?);
    }
    for table in tables {
        if names.contains(&table) {
            report.tables.push(Table { name: table, rows: 0 });
        } else {
            let remedy = "restore the database from a backup";
            report.problem(format!("table {table} is missing"), remedy);
        }
    }
    for Index { name, table, create } in indexes {
        match found.get(&name) {
            Some(true) => {}
            Some(false) => report.problem(
                format!("index {name} of table {table} is invalid and not used"),
                format!("run \"DROP INDEX {name}; {create}\""),
            ),
            None => report.problem(
                format!("index {name} of table {table} is missing"),
                format!("run \"{create}\""),
            ),
        }
    }
    Ok(())
}

/// The tables and the named indexes that the migrations of a dialect make.
fn made_by(dialect: &Dialect) -> (Vec<String>, Vec<Index>) {
    let (mut tables, mut indexes) = (Vec::new(), Vec::<Index>::new());
    for (_, script) in dialect.versions {
        let lines = script.lines().map(|line| line.split("--").next().unwrap_or_default());
        let script = lines.collect::<Vec<_>>().join("\n");
        for statement in script.split(';') {
            let words: Vec<&str> = statement.split_whitespace().collect();
            let words: Vec<&str> = match words.as_slice() {
                [create, kind, "IF", "NOT", "EXISTS", rest @ ..] => {
                    [&[*create, *kind], rest].concat()
                }
                words => words.to_vec(),
            };
            match words.as_slice() {
                ["CREATE", "TABLE", table, ..] => {
                    tables.push((*table).to_owned());
                    indexes.extend(statement.lines().filter_map(|line| key(line, table)));
                }
                ["CREATE", "INDEX", name, "ON", table, ..] => indexes.push(Index {
                    name: (*name).to_owned(),
                    table: (*table).to_owned(),
                    create: words.join(" "),
                }),
                ["DROP", "INDEX", name, ..] => indexes.retain(|index| index.name != *name),
                // MySQL's is in the quotes of another one.
                _ => {
                    let altered = statement.split_once("ALTER TABLE ").map_or("", |parts| parts.1);
                    let table = altered.split_whitespace().next().unwrap_or_default();
                    let added = altered.lines().filter_map(|line| line.trim().strip_prefix("ADD "));
                    indexes.extend(added.filter_map(|line| key(line, table)));
                }
            }
        }
    }
    (tables, indexes)
}

/// A line of a table's definition that makes an index.
fn key(line: &str, table: &str) -> Option<Index> {
    let (name, columns) = line.trim().strip_prefix("KEY ")?.split_once(' ')?;
    let columns = columns.split_inclusive(')').next()?;
    Some(Index {
        name: name.to_owned(),
        table: table.to_owned(),
        create: format!("CREATE INDEX {name} ON {table} {columns}"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::dialect::{MYSQL, POSTGRES, SQLITE};
    use super::*;

    #[test]
    fn all_kinds_of_database_have_the_same_tables_and_indexes() {
        let names = |dialect| {
            let (mut tables, indexes) = made_by(dialect);
            tables.sort();
            let mut indexes: Vec<_> =
                indexes.into_iter().map(|index| (index.table, index.name)).collect();
            indexes.sort();
            (tables, indexes)
        };
        let sqlite = names(&SQLITE);
        assert!(sqlite.0.contains(&"entries".to_owned()), "{sqlite:?}");
        assert!(sqlite.1.len() >= 12, "{sqlite:?}");
        assert_eq!(names(&POSTGRES), sqlite);
        assert_eq!(names(&MYSQL), sqlite);
    }

    #[test]
    fn the_statement_that_makes_an_index_is_told() {
        let of = |dialect| {
            let (_, indexes) = made_by(dialect);
            let mut found = indexes.into_iter().filter(|index| index.name == "entries_by_hint");
            found.next().unwrap().create
        };
        let create = "CREATE INDEX entries_by_hint ON entries (hint, number)";
        assert_eq!(of(&MYSQL), create);
        assert_eq!(of(&POSTGRES), format!("{create} WHERE hint <> ''"));
    }
}
