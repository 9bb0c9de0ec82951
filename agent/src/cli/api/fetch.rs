//! `api fetch` and `api fetch x509`: the X.509-SVIDs of the calling process.

use std::time::Instant;

use jiff::Timestamp;
use spire_core::command::{Command, OUTPUT, Outcome, is_json, print, print_json};
use spire_core::flags::{Flag, Values};
use spire_core::wire::json;
use spire_core::wire::workload::X509svidRequest;

use super::x509::{Answer, Form};
use super::{MANNER, PUBLIC_CONNECTION, TIMEOUT, client, first, in_time};

const SILENT: Flag = Flag::bool("silent", "Does not print what was received");
const WRITE: Flag =
    Flag::text("write", "Folder to write SVIDs, keys and bundles to, as PEM (only with pretty)");
const FLAGS: &[&[Flag]] = &[PUBLIC_CONNECTION, &[SILENT, WRITE, TIMEOUT, OUTPUT]];
const SYNOPSIS: &str = "Fetches X.509-SVIDs from the Workload API.";

pub(in crate::cli) const COMMANDS: &[Command] = &[
    Command::new("api fetch", SYNOPSIS, FLAGS, |values| Box::pin(fetch(values)))
        .named("fetch x509")
        .manner(MANNER),
    Command::new("api fetch x509", SYNOPSIS, FLAGS, |values| Box::pin(fetch(values)))
        .named("fetch x509")
        .manner(MANNER)
        .example("spire-agent api fetch x509 -write /tmp/svid"),
];

async fn fetch(values: Values) -> Outcome {
    let mut client = client(&values)?;
    let started = Instant::now();
    let call = async { first(client.fetch_x509svid(X509svidRequest {}).await?.into_inner()).await };
    let response = in_time(&values, call).await?;
    let waited = started.elapsed();
    let answer = Answer::check(&response, Timestamp::now())?;
    if is_json(&values) {
        return print_json(&json::to_json(&response));
    }
    if !values.bool(SILENT.name) {
        print(&answer.report(waited, Form::Fetch)?)?;
    }
    values.given_text(WRITE.name).map_or(Ok(()), |folder| answer.write(folder))
}
