//! `datastore check`: what the database of a server's file is like, and what is wrong with it.

use std::fmt::Write;

use spire_core::command::{Command, Failure, OUTPUT, Outcome, is_json, print, print_json};
use spire_core::flags::{Flag, Values};

use crate::config::{self, RunFlags, ServerPlugins};
use crate::store::check::{self, Report};

pub(super) const COMMAND: Command = Command::new(
    "datastore check",
    "Looks at the database that the server's file names, and tells what is wrong with it.",
    &[FLAGS, &[OUTPUT]],
    |values| Box::pin(check(values)),
)
.example("spire-server datastore check -config conf/server/server.conf");

const FLAGS: &[Flag] = &[
    Flag::text("config", "Path of the server's file").default(config::DEFAULT_FILE),
    Flag::bool("expandEnv", "Replace $VARIABLE in the file from the environment"),
];

async fn check(values: Values) -> Outcome {
    let flags = RunFlags {
        config: values.given_text("config").map(Into::into),
        expand_env: values.bool("expandEnv"),
        ..RunFlags::default()
    };
    let config = config::load(&flags)?.config;
    let plugins = ServerPlugins::assign(&config.plugins)?;
    let kept_for = config.experimental.prune_events_older_than;
    let report = check::check(&plugins.data_store, kept_for).await?;
    if is_json(&values) {
        print_json(&serde_json::to_value(&report)?)?;
    } else {
        print(&pretty(&report))?;
    }
    match report.problems.len() {
        0 => Ok(()),
        1 => Err(Failure::new("the datastore has a problem")),
        count => Err(Failure::new(format!("the datastore has {count} problems"))),
    }
}

fn pretty(report: &Report) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<22}: {value}");
    };
    line("Database", &report.database);
    for fact in &report.facts {
        let mut name = fact.name.to_owned();
        name[..1].make_ascii_uppercase();
        line(&name, &fact.value);
    }
    for table in &report.tables {
        line("Table", &format!("{:<20} {:>12} rows", table.name, table.rows));
    }
    for plan in &report.statements {
        let indexes = plan.indexes.join(", ");
        let how = match &plan.reads_all_of {
            Some(table) if indexes.is_empty() => format!("reads {table} in its order"),
            Some(table) => format!("reads {table} in its order, {indexes}"),
            None => indexes,
        };
        line("Statement", &format!("{:<38} {how}", plan.statement));
    }
    for problem in &report.problems {
        line("Problem", &problem.what);
        line("  Remedy", &problem.remedy);
    }
    line("Verdict", if report.problems.is_empty() { "fine" } else { "see the problems" });
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::check::{Fact, Plan, Problem, Table};

    #[test]
    fn a_report_is_a_list_for_people() {
        let report = Report {
            database: "postgres://spire@db:5432/spire".to_owned(),
            facts: vec![Fact { name: "engine", value: "PostgreSQL 15.8".to_owned() }],
            tables: vec![Table { name: "entries".to_owned(), rows: 7 }],
            statements: vec![
                Plan {
                    statement: "list entries by parent",
                    indexes: vec!["entries_by_parent_id".to_owned()],
                    reads_all_of: None,
                },
                Plan {
                    statement: "list entries",
                    indexes: Vec::new(),
                    reads_all_of: Some("r".to_owned()),
                },
            ],
            problems: vec![Problem { what: "it burns".to_owned(), remedy: "water".to_owned() }],
        };
        let expected = "\
            Database              : postgres://spire@db:5432/spire\n\
            Engine                : PostgreSQL 15.8\n\
            Table                 : entries                         7 rows\n\
            Statement             : list entries by parent                 entries_by_parent_id\n\
            Statement             : list entries                           reads r in its order\n\
            Problem               : it burns\n\
            \x20 Remedy              : water\n\
            Verdict               : see the problems\n";
        assert_eq!(pretty(&report), expected);
    }
}
