//! `debug getinfo`: how long the agent runs, how much it holds, and what proves it.

use spire_core::command::{
    Command, OUTPUT, Outcome, answer, info_line, rfc3339, svid_chain, uptime,
};
use spire_core::flags::Values;
use spire_core::wire::agent_debug::debug_client::DebugClient;
use spire_core::wire::agent_debug::{GetInfoRequest, GetInfoResponse};

use super::{ADMIN_CONNECTION, ADMIN_SOCKET};

pub(super) const COMMANDS: &[Command] = &[Command::new(
    "debug getinfo",
    "Prints how long the agent runs, how much it holds, and its own SVID.",
    &[ADMIN_CONNECTION, &[OUTPUT]],
    |values| Box::pin(info(values)),
)
.example("spire-agent debug getinfo")];

async fn info(values: Values) -> Outcome {
    let mut client = DebugClient::new(ADMIN_SOCKET.channel(&values)?);
    let info = client.get_info(GetInfoRequest {}).await?.into_inner();
    answer(&values, &info, || report(&info))
}

fn report(info: &GetInfoResponse) -> String {
    let synced = match info.last_sync_success {
        0 => "(never)".to_owned(),
        seconds => rfc3339(seconds),
    };
    let chain = info.svid_chain.iter();
    [
        "Agent Debug Info:\n".to_owned(),
        info_line("Uptime", uptime(info.uptime)),
        info_line("Last Sync Success", synced),
        info_line("Cached X.509 SVIDs", info.cached_x509_svids_count),
        info_line("Cached JWT SVIDs", info.cached_jwt_svids_count),
        info_line("Cached SVID Store X.509 SVIDs", info.cached_svidstore_x509_svids_count),
        svid_chain(chain.map(|cert| (cert.id.as_ref(), cert.subject.as_str(), cert.expires_at))),
    ]
    .concat()
}
