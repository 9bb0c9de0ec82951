//! `healthcheck`: whether the agent serves.

use spire_core::command::{Command, HEALTHCHECK, Manner, check_health};

use super::{PUBLIC_CONNECTION, PUBLIC_SOCKET};

pub(super) const COMMANDS: &[Command] = &[Command::new(
    "healthcheck",
    "Says whether the agent serves.",
    &[PUBLIC_CONNECTION, HEALTHCHECK],
    |values| {
        Box::pin(
            async move { check_health(&values, PUBLIC_SOCKET.channel(&values)?, "agent").await },
        )
    },
)
.named("health")
.manner(Manner { failure: "Agent is unhealthy: ", help_end: "", ..Manner::ERROR })
.example("spire-agent healthcheck -verbose")];
