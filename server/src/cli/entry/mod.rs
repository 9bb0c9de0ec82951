//! `entry`: which workloads get which SPIFFE ID.

mod batches;
mod block;
mod change;
mod data;
mod delete;
mod list;

use spire_core::command::Command;
use spire_core::flags::Flag;

use super::COMMON;

pub(super) const COMMANDS: &[Command] = &[
    Command::new(
        "entry create",
        "Creates entries: by these flags one, by -data as many as a file holds.",
        &[COMMON, ENTRY, NODE],
        |values| Box::pin(change::create(values)),
    )
    .example(
        "spire-server entry create \\\n    \
         -parentID spiffe://example.org/spire/agent/join_token/TOKEN \\\n    \
         -spiffeID spiffe://example.org/web -selector unix:uid:1000 -selector unix:gid:1000\n\
         spire-server entry create -data entries.json",
    ),
    Command::new(
        "entry update",
        "Replaces entries as a whole; what no flag or file gives is cleared.",
        &[COMMON, ENTRY],
        |values| Box::pin(change::update(values)),
    )
    .example(
        "spire-server entry update -entryID ID -parentID spiffe://example.org/host \\\n    \
         -spiffeID spiffe://example.org/web -selector unix:uid:1000 -x509SVIDTTL 3600",
    ),
    Command::new(
        "entry show",
        "Shows entries: all, one, or those that fit every filter.",
        &[COMMON, FILTER, ID],
        |values| Box::pin(list::show(values)),
    )
    .example("spire-server entry show -selector unix:uid:1000 -matchSelectorsOn superset"),
    Command::new(
        "entry count",
        "Counts entries: all, or those that fit every filter.",
        &[COMMON, FILTER],
        |values| Box::pin(list::count(values)),
    ),
    Command::new(
        "entry delete",
        "Deletes entries by id, or those that a file lists.",
        &[COMMON, DELETE],
        |values| Box::pin(delete::delete(values)),
    )
    .example(
        "spire-server entry delete -entryID ID\n\
         echo '{\"ids\":[\"ID\",\"ANOTHER\"]}' | spire-server entry delete -file -",
    ),
];

const ENTRY: &[Flag] = &[
    Flag::text("entryID", "Id of the entry; create makes one up where it is absent"),
    Flag::text("parentID", "SPIFFE ID of the agent or alias that may serve the workload"),
    Flag::text("spiffeID", "SPIFFE ID that the workload gets"),
    Flag::integer("x509SVIDTTL", "Lifetime of X.509-SVIDs in seconds; 0 is the server's default"),
    Flag::integer("jwtSVIDTTL", "Lifetime of JWT-SVIDs in seconds; 0 is the server's default"),
    Flag::integer("ttl", "Former flag for both lifetimes").former(),
    Flag::text(
        "data",
        "File with entries as JSON, or - for the standard input; the flags of one entry are then ignored",
    ),
    Flag::list(
        "selector",
        "What the workload must have, as type:value; may be given several times",
    ),
    Flag::list(
        "federatesWith",
        "Trust domain whose bundle the workload gets; may be given several times",
    ),
    Flag::bool("admin", "The workload may call the server's admin APIs"),
    Flag::bool("storeSVID", "The agent pushes the SVID to a store of secrets"),
    Flag::bool("downstream", "The workload is a server below this one"),
    Flag::integer("entryExpiry", "When the entry goes, in seconds since 1970; 0 is never"),
    Flag::list("dns", "DNS name in the X.509-SVID; may be given several times"),
    Flag::text("hint", "Tells the workload which of its SVIDs to use"),
    Flag::bool(
        "disableX509SVIDPrefetch",
        "The agent makes the X.509-SVID when it is first asked for",
    ),
    Flag::bool("jwtSVIDIncludeJTI", "JWT-SVIDs carry an id of their own"),
];

const NODE: &[Flag] =
    &[Flag::bool("node", "The entry is an alias of nodes: its parent is the server")];

const ID: &[Flag] = &[Flag::text("entryID", "Id of the one entry to show; no filter goes with it")];

const FILTER: &[Flag] = &[
    Flag::text("parentID", "Only entries with this parent"),
    Flag::text("spiffeID", "Only entries for this SPIFFE ID"),
    Flag::bool("downstream", "Only entries for downstream servers"),
    Flag::list(
        "selector",
        "Only entries by this selector, as type:value; may be given several times",
    ),
    Flag::text("matchSelectorsOn", "How selectors are compared: exact, any, superset or subset")
        .default("superset"),
    Flag::list(
        "federatesWith",
        "Only entries that federate with this trust domain; may be given several times",
    ),
    Flag::text(
        "matchFederatesWithOn",
        "How trust domains are compared: exact, any, superset or subset",
    )
    .default("superset"),
    Flag::text("hint", "Only entries with this hint"),
];

const DELETE: &[Flag] = &[
    Flag::text("entryID", "Id of the entry"),
    Flag::text("file", "File with ids as JSON, {\"ids\":[\"…\"]}, or - for the standard input"),
];
