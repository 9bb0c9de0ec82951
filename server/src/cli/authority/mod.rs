//! `authority show`: the tree of what signs in the trust domain, as text, JSON, Mermaid or SVG.

mod mermaid;
mod svg;
mod tree;

use spire_core::command::{Command, Outcome, print, print_json};
use spire_core::flags::{Flag, Values};
use spire_core::wire::cloud_server::GetAuthoritiesRequest;
use spire_core::wire::cloud_server::authorities_client::AuthoritiesClient;
use spire_core::wire::json;

use super::{CONNECTION, SOCKET};

const OUTPUT: Flag = Flag::checked(
    "output",
    check_format,
    "Output format: pretty, json, mermaid or svg. The default is pretty",
);

pub(super) const COMMANDS: &[Command] = &[Command::new(
    "authority show",
    "Shows roots, upstream authorities, this server's authorities and the keys for JWT-SVIDs.",
    &[CONNECTION, &[OUTPUT]],
    |values| Box::pin(show(values)),
)
.example("spire-server authority show -output svg > authorities.svg")];

fn check_format(_: Option<&str>, value: &str) -> Result<(), String> {
    match value {
        "pretty" | "json" | "mermaid" | "svg" => Ok(()),
        _ => Err(format!("bad formatter flag: unknown format option: {value:?}")),
    }
}

async fn show(values: Values) -> Outcome {
    let mut client = AuthoritiesClient::new(SOCKET.channel(&values)?);
    let shown = client.get_authorities(GetAuthoritiesRequest {}).await?.into_inner();
    match values.text(OUTPUT.name) {
        "json" => print_json(&json::to_json(&shown)),
        "mermaid" => print(&mermaid::draw(&tree::of(&shown))),
        "svg" => print(&svg::draw(&tree::of(&shown))),
        _ => print(&tree::of(&shown).to_text()),
    }
}
