//! `healthcheck`: whether the server serves.

use spire_core::command::{Command, Context, HEALTHCHECK, check_health};

use super::{CONNECTION, SOCKET};

pub(super) const COMMANDS: &[Command] = &[Command::new(
    "healthcheck",
    "Says whether the server serves.",
    &[CONNECTION, HEALTHCHECK],
    |values| {
        Box::pin(async move {
            let checked = check_health(&values, SOCKET.channel(&values)?, "server").await;
            checked.context("server is unhealthy")
        })
    },
)
.example("spire-server healthcheck -verbose")];
