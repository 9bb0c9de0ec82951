//! `agent`: the nodes that have attested.

mod remove;
mod show;

use spire_core::command::Command;
use spire_core::flags::{Check, Flag};

use super::COMMON;

pub(super) const COMMANDS: &[Command] = &[
    Command::new(
        "agent list",
        "Lists agents: all, or those that fit every filter.",
        &[COMMON, FILTER],
        |values| Box::pin(show::list(values)),
    )
    .example("spire-server agent list -attestationType join_token -banned false"),
    Command::new(
        "agent count",
        "Counts agents: all, or those that fit every filter.",
        &[COMMON, FILTER],
        |values| Box::pin(show::count(values)),
    ),
    Command::new("agent show", "Shows one agent and its selectors.", &[COMMON, ID], |values| {
        Box::pin(show::show(values))
    })
    .example("spire-server agent show -spiffeID spiffe://example.org/spire/agent/join_token/TOKEN"),
    Command::new(
        "agent ban",
        "Shuts an agent out for good; evict it to let its node attest again.",
        &[COMMON, ID],
        |values| Box::pin(remove::ban(values)),
    ),
    Command::new(
        "agent evict",
        "Forgets an agent; its node may attest again.",
        &[COMMON, ID],
        |values| Box::pin(remove::evict(values)),
    ),
    Command::new(
        "agent purge",
        "Forgets agents that expired long ago and can attest again.",
        &[COMMON, PURGE],
        |values| Box::pin(remove::purge(values)),
    )
    .example("spire-server agent purge -expiredFor 24h -dryRun"),
];

const ID: &[Flag] = &[Flag::text("spiffeID", "SPIFFE ID of the agent")];

/// Both values, or none: any other text filters nothing.
const ANY: Check = |_, _| Ok(());

const FILTER: &[Flag] = &[
    Flag::list(
        "selector",
        "Only agents with this selector, as type:value; may be given several times",
    ),
    Flag::text("matchSelectorsOn", "How selectors are compared: exact, any, superset or subset")
        .default("superset"),
    Flag::text("attestationType", "Only agents that attested in this way, such as join_token"),
    Flag::checked("canReattest", ANY, "Only agents that can attest again (true) or cannot (false)"),
    Flag::checked("banned", ANY, "Only agents that are banned (true) or are not (false)"),
    Flag::text(
        "expiresBefore",
        "Only agents whose SVID ends before this time, as \"2006-01-02 15:04:05 -0700 -07\"",
    ),
];

const PURGE: &[Flag] = &[
    Flag::duration("expiredFor", "How long ago an agent's SVID must have ended")
        .default("720h0m0s"),
    Flag::bool("dryRun", "Only tell which agents would be forgotten"),
];
