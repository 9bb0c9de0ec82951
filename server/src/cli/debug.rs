//! `debug getinfo`: how long the server runs, how much it holds, and what proves it.

use spire_core::command::{Command, Outcome, answer, info_line, svid_chain, uptime};
use spire_core::flags::Values;
use spire_core::wire::debug::debug_client::DebugClient;
use spire_core::wire::debug::{GetInfoRequest, GetInfoResponse};

use super::{COMMON, SOCKET};

pub(super) const COMMANDS: &[Command] = &[Command::new(
    "debug getinfo",
    "Prints how long the server runs, how much it holds, and its own SVID.",
    &[COMMON],
    |values| Box::pin(info(values)),
)
.example("spire-server debug getinfo")];

async fn info(values: Values) -> Outcome {
    let mut client = DebugClient::new(SOCKET.channel(&values)?);
    let info = client.get_info(GetInfoRequest {}).await?.into_inner();
    answer(&values, &info, || report(&info))
}

fn report(info: &GetInfoResponse) -> String {
    let chain = info.svid_chain.iter();
    [
        "Server Debug Info:\n".to_owned(),
        info_line("Uptime", uptime(info.uptime)),
        info_line("Registered Agents", info.agents_count),
        info_line("Registration Entries", info.entries_count),
        info_line("Federated Bundles", info.federated_bundles_count),
        svid_chain(chain.map(|cert| (cert.id.as_ref(), cert.subject.as_str(), cert.expires_at))),
    ]
    .concat()
}
