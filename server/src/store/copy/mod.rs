//! Copying a database into another one, of any kind: `spire-server datastore copy`.
//!
//! A [`records::Source`] gives the records as they were at one moment, in the server's vocabulary
//! and in bounded batches. One source reads the server's own tables; another reads those of SPIRE.
//! The target takes them in one transaction, in which they are also read again and compared, record
//! by record, before it is committed. Rows keep their numbers, so that lists keep their order and
//! page tokens stay good.

mod error;
mod own;
mod records;
mod report;
mod snapshot;
mod spire;
mod tables;
mod target;
mod verify;

use std::path::PathBuf;

use jiff::Timestamp;
use spire_core::id::TrustDomain;

use super::Settings;
use super::database::Connection;
use super::migrations::{Tables, whose};
use own::Own;
use records::{Position, Records, Source};
use report::no_counts;
use snapshot::Snapshot;
use spire::Spire;
use target::{Content, Filling};

pub use error::CopyError;
pub use records::{Cause, Kind, Remark, Skipped};
pub use report::{Bounded, Count, Outcome, Report};

/// How many records are read at a time.
const BATCH: u32 = 1000;

/// What is to be copied.
#[derive(Debug, Clone)]
pub struct Order {
    /// The database that is read.
    pub from: Settings,
    /// The empty database that is filled.
    pub to: Settings,
    /// The folder in which SPIRE 1.8 and earlier kept the journal of its authorities.
    pub data_dir: Option<PathBuf>,
    /// Do everything but the commit; then the source may also be in use.
    pub rehearsal: bool,
    /// The present.
    pub now: Timestamp,
}

/// What is done with the records of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// They are read and written.
    Copying,
    /// They are read on both sides and compared.
    Comparing,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is done.
    pub step: Step,
    /// With which records.
    pub kind: Kind,
    /// With how many rows it was done.
    pub done: u64,
    /// How many rows there are.
    pub total: u64,
}

/// Is told how far it is, after each batch.
pub type Told<'t> = dyn FnMut(Progress) + Send + 't;

/// Copies a database. The source is not changed, and kept from being changed meanwhile; the target
/// is changed by the last step alone.
///
/// # Errors
/// [`CopyError`]: nothing was copied.
pub async fn copy(order: &Order, told: &mut Told<'_>) -> Result<Report, CopyError> {
    let (from, to) = (order.from.place()?, order.to.place()?);
    for (which, place) in [("source", &from), ("target", &to)] {
        if place.is_memory() {
            return Err(CopyError::InMemory(which));
        }
    }
    if from.is_same(&to) {
        return Err(CopyError::SamePlace(from.name()));
    }
    let content = target::content(&to).await?;
    let (snapshot, in_use) = Snapshot::take(order).await?;
    let mut source: Box<dyn Source> = match whose(&snapshot.tables) {
        Tables::Spire => {
            Box::new(Spire::open(snapshot, order.data_dir.as_deref(), order.now).await?)
        }
        _ => Box::new(Own::open(snapshot).await?),
    };
    let mut report = Report {
        source: from.name(),
        source_title: source.title(),
        target: to.name(),
        in_use,
        outcome: Outcome::AlreadyThere,
        counts: no_counts(),
        skipped: Bounded::default(),
        unreadable: 0,
        remarks: Bounded::default(),
    };
    let done = match content {
        Content::Records(mut held) => {
            let compared = compare(&mut *source, &mut held, &mut report, told).await;
            held.close().await;
            compared
        }
        Content::Nothing => match Filling::begin(&to).await {
            Err(error) => Err(error),
            Ok(filling) => fill(&mut *source, filling, order.rehearsal, &mut report, told).await,
        },
    };
    source.close().await;
    done.map(|()| report)
}

/// Finds out whether a target that holds records holds just those of the source.
async fn compare(
    source: &mut dyn Source,
    held: &mut Connection,
    report: &mut Report,
    told: &mut Told<'_>,
) -> Result<(), CopyError> {
    if let Some(what) = verify::difference(source, held, told).await? {
        return Err(CopyError::TargetHolds { name: report.target.clone(), what });
    }
    read_all(source, None, report, &mut |_| ()).await
}

/// Fills an empty target, compares it with the source and keeps it.
async fn fill(
    source: &mut dyn Source,
    mut filling: Filling,
    rehearsal: bool,
    report: &mut Report,
    told: &mut Told<'_>,
) -> Result<(), CopyError> {
    match fill_and_compare(source, &mut filling, report, told).await {
        Ok(()) if !rehearsal => {
            report.outcome = Outcome::Copied;
            filling.commit().await
        }
        outcome => {
            report.outcome = Outcome::Rehearsed;
            filling.undo().await;
            outcome
        }
    }
}

async fn fill_and_compare(
    source: &mut dyn Source,
    filling: &mut Filling,
    report: &mut Report,
    told: &mut Told<'_>,
) -> Result<(), CopyError> {
    read_all(source, Some(filling), report, told).await?;
    filling.set_head(source.head()).await.map_err(CopyError::Counters)?;
    match verify::difference(source, filling.reader(), told).await? {
        Some(what) => Err(CopyError::Differs(what)),
        None => Ok(()),
    }
}

/// Reads all records of the source, reports them and writes them where there is something to fill.
async fn read_all(
    source: &mut dyn Source,
    mut filling: Option<&mut Filling>,
    report: &mut Report,
    told: &mut Told<'_>,
) -> Result<(), CopyError> {
    let mut domain = None;
    for kind in Kind::ALL {
        let total = source.count(kind).await?;
        let mut done = 0;
        let mut from = Some(Position::Start);
        while let Some(position) = from {
            let batch = source.read(kind, position).await?;
            check_domain(&mut domain, &batch.records, report)?;
            if let Some(filling) = &mut filling {
                filling.insert(&batch.records).await?;
            }
            done += batch.read;
            from = batch.next;
            report.add(batch);
            told(Progress { step: Step::Copying, kind, done, total });
        }
    }
    if report.counts.iter().all(|count| count.copied == 0) {
        return Err(CopyError::EmptySource(report.source.clone()));
    }
    Ok(())
}

/// All entries must be of one trust domain, or no server takes them. A node of another one is of
/// no use, and does no harm.
fn check_domain(
    domain: &mut Option<TrustDomain>,
    records: &Records,
    report: &mut Report,
) -> Result<(), CopyError> {
    match records {
        Records::Entries(entries) => {
            for entry in entries.iter().map(|kept| &kept.record) {
                for id in [&entry.spiffe_id, &entry.parent_id] {
                    let one = domain.get_or_insert_with(|| id.trust_domain());
                    if one.as_str() != id.trust_domain_name() {
                        return Err(CopyError::TrustDomains {
                            entry: entry.id.to_string(),
                            one: one.clone(),
                            other: id.trust_domain(),
                        });
                    }
                }
            }
        }
        Records::Nodes(nodes) => {
            for node in nodes.iter().map(|kept| &kept.record) {
                let own = node.agent_id.trust_domain_name();
                if domain.as_ref().is_some_and(|domain| domain.as_str() != own) {
                    report.remark(Remark {
                        table: tables::table(Kind::Node),
                        name: node.agent_id.to_string(),
                        text: "is of another trust domain than the entries".to_owned(),
                    });
                }
            }
        }
        _ => {}
    }
    Ok(())
}
