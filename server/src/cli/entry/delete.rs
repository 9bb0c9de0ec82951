//! `entry delete`.

use std::fmt::Write;

use spire_core::command::{Failure, Outcome, is_json, print, print_error, print_json, read_file};
use spire_core::flags::Values;
use spire_core::wire::entry::batch_delete_entry_response::Result as Item;
use spire_core::wire::entry::entry_client::EntryClient;
use spire_core::wire::entry::{BatchDeleteEntryRequest, BatchDeleteEntryResponse};
use spire_core::wire::json::{from_json, to_json};

use super::batches::batches;
use crate::cli::SOCKET;
use crate::cli::values::ItemStatus;

pub(super) async fn delete(values: Values) -> Outcome {
    let ids = match (values.given_text("file"), values.given_text("entryID")) {
        (Some(path), _) => {
            let text = String::from_utf8_lossy(&read_file(path)?).into_owned();
            from_json::<BatchDeleteEntryRequest>(&text).map_err(Failure::new)?.ids
        }
        (None, Some(id)) => vec![id.to_owned()],
        (None, None) => return Err(Failure::new("an entry ID is required")),
    };
    let mut client = EntryClient::new(SOCKET.channel(&values)?);
    let mut results = Vec::with_capacity(ids.len());
    let mut outcome = Ok(());
    for ids in batches(ids, String::len) {
        match client.batch_delete_entry(BatchDeleteEntryRequest { ids }).await {
            Ok(response) => results.extend(response.into_inner().results),
            Err(status) => {
                outcome = Err(status.into());
                break;
            }
        }
    }
    if outcome.is_err() && results.is_empty() {
        return outcome;
    }
    if is_json(&values) {
        print_json(&to_json(&BatchDeleteEntryResponse { results }))?;
    } else {
        tell(&results)?;
    }
    outcome
}

fn tell(results: &[Item]) -> Outcome {
    let mut report = String::new();
    let mut failures = String::new();
    let (mut deleted, mut failed) = (0, 0);
    for result in results {
        let status = ItemStatus(result.status.as_ref());
        let id = &result.id;
        if status.is_ok() {
            deleted += 1;
            let _ = writeln!(report, "Deleted entry with ID: {id}");
        } else {
            failed += 1;
            let _ = writeln!(failures, "Failed to delete entry with ID {id} ({status})");
        }
    }
    // Two empty lines after each kind of line, and no end of the last one.
    for count in [deleted, failed] {
        if count > 0 {
            report.push_str("\n\n");
        }
    }
    report.push_str(&match (deleted, failed) {
        (0, 1..) => format!("Failed to delete {failed} entries"),
        (_, 0) => format!("Deleted {deleted} entries successfully"),
        _ => {
            format!("Deleted {deleted} entries successfully, but failed to delete {failed} entries")
        }
    });
    print_error(&failures);
    print(&report)?;
    if failed > 0 {
        return Err(Failure::new("failed to delete one or more entries"));
    }
    Ok(())
}
