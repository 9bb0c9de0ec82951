//! `healthcheck` of both programs.

use tonic::transport::Channel;

use super::{Failure, Outcome, print, print_error};
use crate::flags::{Flag, Values};
use crate::wire::health::HealthCheckRequest;
use crate::wire::health::health_check_response::ServingStatus;
use crate::wire::health::health_client::HealthClient;

const VERBOSE: Flag = Flag::bool("verbose", "Says what is done, and what went wrong");

/// The flags of `healthcheck` beside the socket's.
pub const HEALTHCHECK: &[Flag] =
    &[Flag::bool("shallow", "Has no effect: every check is one of the whole process"), VERBOSE];

/// Asks whether the process serves. `role` says what it is: `server` or `agent`.
///
/// # Errors
/// It does not serve, or could not be asked.
pub async fn check_health(values: &Values, channel: Channel, role: &str) -> Outcome {
    let verbose = values.bool(VERBOSE.name);
    if verbose {
        print(&format!("Checking {role} health...\n"))?;
    }
    let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
    let status = answer.map(|answer| answer.into_inner().status()).map_err(|error| {
        if verbose {
            print_error(&format!("Failed to check health: {}\n", Failure::from(error)));
        }
        Failure::new("unable to determine health")
    })?;
    if status != ServingStatus::Serving {
        let status = status.as_str_name();
        return Err(Failure::new(format!("{role} returned status {status:?}")));
    }
    let mut role = role.to_owned();
    role[..1].make_ascii_uppercase();
    print(&format!("{role} is healthy.\n"))
}
