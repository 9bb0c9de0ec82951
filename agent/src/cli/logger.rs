//! `logger`: how much the agent logs, looked at and changed while it runs.

use spire_core::command::{
    Command, Context, Failure, LEVEL, OUTPUT, Outcome, print_logger, wanted_level,
};
use spire_core::flags::Values;
use spire_core::wire::agent_logger::logger_client::LoggerClient;
use spire_core::wire::agent_logger::{GetLoggerRequest, ResetLogLevelRequest, SetLogLevelRequest};
use tonic::transport::Channel;

use super::{ADMIN_CONNECTION, ADMIN_SOCKET};

pub(super) const COMMANDS: &[Command] = &[
    Command::new("logger get", "Prints the log level.", &[ADMIN_CONNECTION, &[OUTPUT]], |values| {
        Box::pin(get(values))
    })
    .example("spire-agent logger get"),
    Command::new(
        "logger reset",
        "Sets the log level back to the one at launch.",
        &[ADMIN_CONNECTION, &[OUTPUT]],
        |values| Box::pin(reset(values)),
    )
    .example("spire-agent logger reset"),
    Command::new(
        "logger set",
        "Sets the log level until the agent ends.",
        &[ADMIN_CONNECTION, &[LEVEL, OUTPUT]],
        |values| Box::pin(set(values)),
    )
    .example("spire-agent logger set -level debug"),
];

async fn get(values: Values) -> Outcome {
    let logger = client(&values)?.get_logger(GetLoggerRequest {}).await;
    print_logger(&values, &logger.context("error fetching logger")?.into_inner())
}

async fn set(values: Values) -> Outcome {
    let request = SetLogLevelRequest { new_level: wanted_level(&values)? };
    let logger = client(&values)?.set_log_level(request).await;
    print_logger(&values, &logger.context("failed to set log level")?.into_inner())
}

async fn reset(values: Values) -> Outcome {
    let logger = client(&values)?.reset_log_level(ResetLogLevelRequest {}).await;
    print_logger(&values, &logger.context("failed to reset logger")?.into_inner())
}

fn client(values: &Values) -> Result<LoggerClient<Channel>, Failure> {
    Ok(LoggerClient::new(ADMIN_SOCKET.channel(values)?))
}
