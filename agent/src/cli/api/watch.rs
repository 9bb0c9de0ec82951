//! `api watch`: the X.509-SVIDs of the calling process, shown at each update until interrupted.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use spire_core::command::{Command, Failure, Manner, Outcome, print, print_error};
use spire_core::flags::Values;
use spire_core::wire::workload::{Client, X509svidRequest, X509svidResponse};
use tonic::Status;

use super::x509::{Answer, Form};
use super::{MANNER, PUBLIC_CONNECTION, client, end_of_stream};
use crate::backoff::Backoff;

/// Pauses after failures: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

pub(in crate::cli) const COMMANDS: &[Command] = &[Command::new(
    "api watch",
    "Prints the X.509-SVIDs of the Workload API at each update, until interrupted.",
    &[PUBLIC_CONNECTION],
    |values| Box::pin(watch(values)),
)
.named("watch")
.manner(Manner { help_end: Manner::ERROR.help_end, ..MANNER })
.example("spire-agent api watch")];

async fn watch(values: Values) -> Outcome {
    let client = client(&values)?;
    tokio::select! {
        ended = follow(client) => ended.map(|never| match never {}),
        _ = tokio::signal::ctrl_c() => {
            let stopped = Failure::from(Status::cancelled("context canceled"));
            print_error(&format!("{stopped}\n"));
            Err(stopped)
        }
    }
}

/// Ends only where nothing can be printed any more.
async fn follow(mut client: Client) -> Result<Infallible, Failure> {
    let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
    let mut last = Instant::now();
    loop {
        let failed = match client.fetch_x509svid(X509svidRequest {}).await {
            Err(status) => status,
            Ok(stream) => {
                let mut stream = stream.into_inner();
                loop {
                    match stream.message().await {
                        Ok(Some(update)) => {
                            show(&update, last.elapsed())?;
                            last = Instant::now();
                            backoff.reset();
                        }
                        Ok(None) => break end_of_stream(),
                        Err(status) => break status,
                    }
                }
            }
        };
        print_error(&format!("{}\n", Failure::from(failed)));
        tokio::time::sleep(backoff.after_failure()).await;
    }
}

fn show(update: &X509svidResponse, waited: Duration) -> Outcome {
    let report = Answer::check(update, Timestamp::now());
    match report.and_then(|answer| answer.report(waited, Form::Watch)) {
        Ok(report) => print(&report),
        Err(failure) => {
            print_error(&format!("{failure}\n"));
            Ok(())
        }
    }
}
