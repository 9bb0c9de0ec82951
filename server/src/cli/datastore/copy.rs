//! `datastore copy`: a database becomes another one, of any kind.

use std::fmt::Write;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};
use spire_core::command::{
    Command, Failure, OUTPUT, Outcome as Ended, is_json, print, print_error, print_json,
};
use spire_core::flags::{Flag, Values};

use super::places::Flags;
use crate::store::copy::{Order, Outcome, Progress, Report, Step, copy};

pub(super) const COMMAND: Command = Command::new(
    "datastore copy",
    "Copies all records of a database, this server's or SPIRE's, into an empty one.",
    &[FLAGS, &[OUTPUT]],
    |values| Box::pin(run(values)),
)
.example(
    "spire-server datastore copy -from sqlite3:/var/lib/spire/datastore.sqlite3 -to \
     'postgres:host=db.example.org user=spire dbname=spire'",
);

const REHEARSAL: Flag =
    Flag::bool("rehearsal", "Do everything but keep the copy; then the source may also be in use");
const DATA_DIR: Flag = Flag::text(
    "dataDir",
    "Folder with a journal of authorities that SPIRE 1.8 or earlier left beside its database",
);

const FLAGS: &[Flag] = &[
    Flag::text(
        FROM.place,
        "Database to read, as TYPE:CONNECTION; TYPE is sqlite3, postgres or mysql",
    ),
    Flag::text(TO.place, "Empty database to fill, in the same form"),
    REHEARSAL,
    DATA_DIR,
    Flag::text(FROM.root_ca, "File with who may vouch for the database that is read, PEM"),
    Flag::text(FROM.client_cert, "File with the certificate that is shown to it, PEM"),
    Flag::text(FROM.client_key, "File with the key of that certificate, PEM"),
    Flag::text(TO.root_ca, "The same as -fromRootCA for the database that is filled"),
    Flag::text(TO.client_cert, "The same as -fromClientCert for it"),
    Flag::text(TO.client_key, "The same as -fromClientKey for it"),
];

const FROM: Flags = Flags {
    place: "from",
    root_ca: "fromRootCA",
    client_cert: "fromClientCert",
    client_key: "fromClientKey",
};
const TO: Flags = Flags {
    place: "to",
    root_ca: "toRootCA",
    client_cert: "toClientCert",
    client_key: "toClientKey",
};

/// The pause between two lines about the same records.
const SILENCE: Duration = Duration::from_secs(2);

async fn run(values: Values) -> Ended {
    let order = Order {
        from: FROM.settings(&values)?,
        to: TO.settings(&values)?,
        data_dir: values.given_text(DATA_DIR.name).map(Into::into),
        rehearsal: values.bool(REHEARSAL.name),
        now: Timestamp::now(),
    };
    for (flag, settings) in [(FROM.place, &order.from), (TO.place, &order.to)] {
        if let Some(weakness) = settings.weakness() {
            print_error(&format!("warning: -{flag}: {weakness}\n"));
        }
    }
    let mut last = Instant::now();
    let report = copy(&order, &mut |progress| tell(progress, &mut last)).await?;
    if is_json(&values) {
        print_json(&in_json(&report))?
    } else {
        print(&pretty(&report))?
    }
    if report.unreadable == 0 {
        return Ok(());
    }
    let (done, count) = (in_words(report.outcome), report.unreadable);
    Err(Failure::new(format!("{done}, but {count} rows could not be read; see the report")))
}

fn tell(progress: Progress, last: &mut Instant) {
    let Progress { step, kind, done, total } = progress;
    if total == 0 || (done < total && last.elapsed() < SILENCE) {
        return;
    }
    *last = Instant::now();
    let step = match step {
        Step::Copying => "copying",
        Step::Comparing => "comparing",
    };
    print_error(&format!("{step} {kind}: {done} of {total}\n"));
}

fn in_words(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Copied => "copied",
        Outcome::Rehearsed => "rehearsed, nothing was kept",
        Outcome::AlreadyThere => "the target already holds the same, nothing was changed",
    }
}

fn pretty(report: &Report) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<16}: {value}");
    };
    line("Source", &report.source);
    line("Holds", &report.source_title);
    if let Some(by) = &report.in_use {
        line("In use", by);
    }
    line("Target", &report.target);
    line("Outcome", in_words(report.outcome));
    let _ = writeln!(text, "\n{:<26}{:>12}{:>12}{:>12}", "Records", "read", "copied", "skipped");
    for count in &report.counts {
        let (kind, skipped) = (count.kind.as_str(), count.read.saturating_sub(count.copied));
        let _ = writeln!(text, "{kind:<26}{:>12}{:>12}{skipped:>12}", count.read, count.copied);
    }
    if report.skipped.total() > 0 {
        let _ = writeln!(text, "\nSkipped rows: {}", report.skipped.total());
        for skipped in &report.skipped.items {
            let (table, name, cause) = (skipped.table, &skipped.name, skipped.cause.as_str());
            let _ = writeln!(text, "  {table} {name}: {cause}: {}", skipped.reason);
        }
        more(&mut text, report.skipped.more);
    }
    if report.remarks.total() > 0 {
        let _ = writeln!(text, "\nRemarks: {}", report.remarks.total());
        for remark in &report.remarks.items {
            let _ = writeln!(text, "  {} {}: {}", remark.table, remark.name, remark.text);
        }
        more(&mut text, report.remarks.more);
    }
    text
}

fn more(text: &mut String, more: u64) {
    if more > 0 {
        let _ = writeln!(text, "  and {more} more");
    }
}

fn in_json(report: &Report) -> Value {
    let counts = report.counts.iter().map(|count| {
        json!({
            "kind": count.kind.as_str(),
            "read": count.read,
            "copied": count.copied,
            "skipped": count.read.saturating_sub(count.copied),
        })
    });
    let skipped = report.skipped.items.iter().map(|skipped| {
        json!({
            "table": skipped.table,
            "name": skipped.name,
            "cause": skipped.cause.as_str(),
            "reason": skipped.reason,
        })
    });
    let remarks = report
        .remarks
        .items
        .iter()
        .map(|remark| json!({"table": remark.table, "name": remark.name, "text": remark.text}));
    let outcome = match report.outcome {
        Outcome::Copied => "copied",
        Outcome::Rehearsed => "rehearsed",
        Outcome::AlreadyThere => "already_there",
    };
    json!({
        "source": report.source,
        "holds": report.source_title,
        "in_use": report.in_use,
        "target": report.target,
        "outcome": outcome,
        "records": Vec::from_iter(counts),
        "skipped": Vec::from_iter(skipped),
        "skipped_total": report.skipped.total(),
        "unreadable": report.unreadable,
        "remarks": Vec::from_iter(remarks),
        "remarks_total": report.remarks.total(),
    })
}
