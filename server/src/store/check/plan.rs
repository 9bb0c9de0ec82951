//! What `EXPLAIN` says, in the words of each kind of database.

use super::super::StoreError;
use super::super::dialect::{Dialect, Explained};
use super::super::row::Row;

/// How a statement finds rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Access {
    /// By these indexes.
    pub(super) indexes: Vec<String>,
    /// By reading all of this table, or all until it has enough.
    pub(super) reads_all_of: Option<String>,
}

impl Access {
    fn by(&mut self, index: &str) {
        if !self.indexes.iter().any(|known| known == index) {
            self.indexes.push(index.to_owned());
        }
    }

    /// A table with one row is always read whole.
    fn reads_all(&mut self, table: &str) {
        if table != "change_head" {
            self.reads_all_of = Some(table.to_owned());
        }
    }
}

/// Reads the rows that the dialect's `EXPLAIN` yields.
pub(super) fn read(dialect: &Dialect, rows: &[Row]) -> Result<Access, StoreError> {
    let texts = |column| rows.iter().map(|row| row.text(column)).collect::<Result<Vec<_>, _>>();
    Ok(match dialect.explained {
        Explained::Details => of_details(&texts(3)?),
        Explained::Tree => of_tree(&texts(0)?),
        Explained::Tables => {
            let column = |row: &Row, name: &str| {
                Ok::<_, StoreError>(row.text_named(name)?.unwrap_or_default().to_owned())
            };
            let table =
                |row| Ok([column(row, "table")?, column(row, "type")?, column(row, "key")?]);
            of_tables(&rows.iter().map(table).collect::<Result<Vec<_>, StoreError>>()?)
        }
    })
}

/// SQLite: `SEARCH r USING INDEX name (column=?)`, `SCAN r`.
fn of_details(details: &[&str]) -> Access {
    let mut access = Access::default();
    // What a query in the statement yields is no table.
    let queries = details.iter().filter_map(|detail| {
        detail.strip_prefix("CO-ROUTINE ").or_else(|| detail.strip_prefix("MATERIALIZE "))
    });
    let queries: Vec<&str> = queries.collect();
    for detail in details {
        let (step, index) = detail.split_once(" USING ").unwrap_or((detail, ""));
        let index = index.trim_start_matches("COVERING ").trim_start_matches("INDEX ");
        let index = index.split(" (").next().unwrap_or_default();
        match step.split_once(' ') {
            Some(("SEARCH" | "SCAN", _)) if !index.is_empty() => access.by(index),
            Some(("SCAN", table))
                if !table.starts_with(['(', 'C']) && !queries.contains(&table) =>
            {
                access.reads_all(table);
            }
            _ => {}
        }
    }
    access
}

/// PostgreSQL: a line for each step, then lines on how it is done. An index that is walked without a
/// condition yields all of its table, unless it holds a part of it only.
fn of_tree(lines: &[&str]) -> Access {
    let mut access = Access::default();
    for (number, line) in lines.iter().enumerate() {
        let is_step = |line: &str| line.contains("  (cost=");
        let Some((step, _)) = line.split_once("  (cost=") else { continue };
        let step = step.trim_start().trim_start_matches("->").trim_start();
        if let Some((_, table)) = step.split_once("Seq Scan on ") {
            access.reads_all(table.split(' ').next().unwrap_or_default());
        } else if let Some((_, rest)) = step.split_once("Scan using ") {
            let (index, table) = rest.split_once(" on ").unwrap_or((rest, ""));
            let details = lines[number + 1..].iter().take_while(|line| !is_step(line));
            let has_condition =
                details.into_iter().any(|line| line.trim_start().starts_with("Index Cond:"));
            access.by(index);
            if !has_condition && index.ends_with("_pkey") {
                access.reads_all(table.split(' ').next().unwrap_or_default());
            }
        } else if let Some((_, index)) = step.split_once("Bitmap Index Scan on ") {
            access.by(index);
        }
    }
    access
}

/// MySQL and MariaDB: a row for each table, with how it is read and by which index.
fn of_tables(rows: &[[String; 3]]) -> Access {
    let mut access = Access::default();
    // What a query in the statement yields is no table.
    for [table, how, index] in rows.iter().filter(|row| !row[0].starts_with('<')) {
        if !index.is_empty() {
            access.by(index);
        }
        if how == "ALL" || (how == "index" && index == "PRIMARY") {
            access.reads_all(table);
        }
    }
    access
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(indexes: &[&str], reads_all_of: Option<&str>) -> Access {
        Access {
            indexes: indexes.iter().map(|index| index.to_string()).collect(),
            reads_all_of: reads_all_of.map(str::to_owned),
        }
    }

    #[test]
    fn sqlite_is_understood() {
        let search = "SEARCH r USING INDEX entries_by_parent_id (parent_id=?)";
        assert_eq!(of_details(&[search]), access(&["entries_by_parent_id"], None));
        assert_eq!(of_details(&["SCAN r", search]), access(&["entries_by_parent_id"], Some("r")));
        let links = [
            "SEARCH j0 USING PRIMARY KEY (selector=?)",
            "SEARCH r USING INTEGER PRIMARY KEY (rowid=?)",
            "CORRELATED SCALAR SUBQUERY 1",
            "SEARCH l USING PRIMARY KEY (selector=? AND owner=?)",
            "SCAN CONSTANT ROW",
            "USE TEMP B-TREE FOR ORDER BY",
        ];
        assert_eq!(of_details(&links), access(&["PRIMARY KEY", "INTEGER PRIMARY KEY"], None));
        let first_of_each = [
            "SEARCH r USING INTEGER PRIMARY KEY (rowid=?)",
            "LIST SUBQUERY 5",
            "CO-ROUTINE firsts",
            "COMPOUND QUERY",
            "LEFT-MOST SUBQUERY",
            "CO-ROUTINE f0",
            "SEARCH entry_selectors USING PRIMARY KEY (selector=? AND owner>?)",
            "SCAN f0",
            "UNION USING TEMP B-TREE",
            "SCAN firsts",
        ];
        assert_eq!(
            of_details(&first_of_each),
            access(&["INTEGER PRIMARY KEY", "PRIMARY KEY"], None)
        );
        let partial = "SCAN r USING COVERING INDEX entries_downstream";
        assert_eq!(of_details(&[partial]), access(&["entries_downstream"], None));
    }

    #[test]
    fn postgresql_is_understood() {
        let found = [
            "Limit  (cost=0.15..8.17 rows=1 width=500)",
            "  ->  Index Scan using entries_by_parent_id on entries r  (cost=0.15..8.17 rows=1 width=5)",
            "        Index Cond: (parent_id = 'x'::text)",
        ];
        assert_eq!(of_tree(&found), access(&["entries_by_parent_id"], None));
        let walked = [
            "Limit  (cost=0.15..8.17 rows=1 width=500)",
            "  ->  Index Scan using entries_pkey on entries r  (cost=0.15..8.17 rows=1 width=500)",
            "        Filter: (parent_id = 'x'::text)",
        ];
        assert_eq!(of_tree(&walked), access(&["entries_pkey"], Some("entries")));
        let read = [
            "Limit  (cost=0.15..8.17 rows=1 width=500)",
            "  ->  Sort  (cost=1.0..2.0 rows=1 width=500)",
            "        Sort Key: number",
            "        ->  Parallel Seq Scan on entries r  (cost=0.00..9.0 rows=1 width=500)",
            "              Filter: (parent_id = 'x'::text)",
            "              InitPlan 1 (returns $0)",
            "                ->  Seq Scan on change_head  (cost=0.00..1.01 rows=1 width=8)",
        ];
        assert_eq!(of_tree(&read), access(&[], Some("entries")));
        let bitmap = [
            "Bitmap Heap Scan on entries r  (cost=4.2..9.0 rows=2 width=500)",
            "  Recheck Cond: (identity = ANY ('{}'::bytea[]))",
            "  ->  Bitmap Index Scan on entries_by_identity  (cost=0.00..4.2 rows=2 width=0)",
            "        Index Cond: (identity = ANY ('{}'::bytea[]))",
        ];
        assert_eq!(of_tree(&bitmap), access(&["entries_by_identity"], None));
    }

    #[test]
    fn mysql_and_mariadb_are_understood() {
        let of = |rows: &[[&str; 3]]| {
            of_tables(&Vec::from_iter(rows.iter().map(|row| row.map(str::to_owned))))
        };
        let found = ["r", "ref", "entries_by_parent_id"];
        assert_eq!(of(&[found]), access(&["entries_by_parent_id"], None));
        assert_eq!(of(&[["r", "ALL", ""]]), access(&[], Some("r")));
        let walked = [["r", "index", "PRIMARY"], ["<subquery2>", "ALL", ""]];
        assert_eq!(of(&walked), access(&["PRIMARY"], Some("r")));
        // No row can be found.
        assert_eq!(of(&[["", "", ""]]), access(&[], None));
    }
}
