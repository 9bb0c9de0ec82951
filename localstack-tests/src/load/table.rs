//! The figures, as a table that can be pasted into a page.

use std::fmt;
use std::time::Duration;

use super::Times;

/// Rows of a Markdown table, told when the program is through.
#[derive(Debug)]
pub struct Table {
    header: &'static [&'static str],
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table of calls, and what they cost the program that answers.
    pub fn of_calls() -> Self {
        let header = &["what", "calls", "a second", "p50", "p99", "CPU for one"];
        Self { header, rows: Vec::new() }
    }

    /// A table of single figures.
    pub fn of_figures() -> Self {
        Self { header: &["what", "figure"], rows: Vec::new() }
    }

    /// Adds calls that did `each` things apiece and cost `cpu` together.
    pub fn add_calls(&mut self, what: &str, times: &Times, each: usize, cpu: Duration) {
        let things = (times.count() * each).max(1);
        let rate = things as f64 / times.wall.as_secs_f64();
        self.rows.push(vec![
            what.to_owned(),
            times.count().to_string(),
            format!("{rate:.0}"),
            milliseconds(times.quantile(0.5)),
            milliseconds(times.quantile(0.99)),
            format!("{:.0} µs", cpu.as_secs_f64() * 1e6 / things as f64),
        ]);
    }

    /// Adds a figure.
    pub fn add(&mut self, what: &str, figure: String) {
        self.rows.push(vec![what.to_owned(), figure]);
    }

    /// Adds memory.
    pub fn add_memory(&mut self, what: &str, bytes: u64) {
        self.add(what, format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)));
    }

    /// Adds the median of some times, and their span.
    pub fn add_times(&mut self, what: &str, times: &Times) {
        let [median, least, most] =
            [0.5, 0.0, 1.0].map(|share| milliseconds(times.quantile(share)));
        self.add(what, format!("{median} ({least} to {most})"));
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |formatter: &mut fmt::Formatter<'_>, cells: &[&str]| {
            writeln!(formatter, "| {} |", cells.join(" | "))
        };
        line(formatter, self.header)?;
        line(formatter, &vec!["---"; self.header.len()])?;
        for row in &self.rows {
            line(formatter, &row.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        Ok(())
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}
