//! `token`: what lets an agent in that has nothing else to prove itself by.

use spire_core::command::{Command, Outcome, answer};
use spire_core::flags::{Flag, Values};
use spire_core::wire::agent::CreateJoinTokenRequest;
use spire_core::wire::agent::agent_client::AgentClient;

use super::values::{int32, spiffe_id};
use super::{COMMON, SOCKET};

pub(super) const COMMANDS: &[Command] = &[Command::new(
    "token generate",
    "Makes a join token, by which one agent can attest once.",
    &[COMMON, FLAGS],
    |values| Box::pin(generate(values)),
)
.named("generate")
.example("spire-server token generate -spiffeID spiffe://example.org/host -ttl 3600")];

const FLAGS: &[Flag] = &[
    Flag::integer("ttl", "Seconds until the token expires").default("600"),
    Flag::text(
        "spiffeID",
        "SPIFFE ID that the agent shall have beside its own, for entries to name",
    ),
];

async fn generate(values: Values) -> Outcome {
    let ttl = int32("TTL", values.integer("ttl"))?;
    let agent_id = values.given_text("spiffeID").map(|id| spiffe_id("spiffeID", id)).transpose()?;
    let agent_id = agent_id.as_ref().map(Into::into);
    let request = CreateJoinTokenRequest { ttl, token: String::new(), agent_id };
    let mut client = AgentClient::new(SOCKET.channel(&values)?);
    let token = client.create_join_token(request).await?.into_inner();
    answer(&values, &token, || {
        let warning = match values.given_text("spiffeID") {
            Some(_) => "",
            None => "Warning: Missing SPIFFE ID.\n",
        };
        format!("Token: {}\n{warning}", token.value)
    })
}
