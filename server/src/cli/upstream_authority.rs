//! `upstreamauthority`: gives up a root above this server.

use spire_core::command::{Command, Context, Failure, Outcome, answer};
use spire_core::flags::{Flag, Values};
use spire_core::wire::local_authority::local_authority_client::LocalAuthorityClient;
use spire_core::wire::local_authority::{
    RevokeX509UpstreamAuthorityRequest, TaintX509UpstreamAuthorityRequest,
};
use tonic::transport::Channel;

use super::{COMMON, SOCKET};

const ID: &[Flag] =
    &[Flag::text("subjectKeyID", "Subject Key ID of the root above the old X.509 authority")];

pub(super) const COMMANDS: &[Command] = &[
    Command::new(
        "upstreamauthority revoke",
        "Takes a tainted root out of the bundle: what leads to it holds no more.",
        &[COMMON, ID],
        |values| Box::pin(revoke(values)),
    )
    .example("spire-server upstreamauthority revoke -subjectKeyID ID"),
    Command::new(
        "upstreamauthority taint",
        "Has all X.509-SVIDs replaced that lead to the root above the old authority.",
        &[COMMON, ID],
        |values| Box::pin(taint(values)),
    )
    .example("spire-server upstreamauthority taint -subjectKeyID ID"),
];

async fn taint(values: Values) -> Outcome {
    let request = TaintX509UpstreamAuthorityRequest { subject_key_id: subject_key_id(&values)? };
    let done = client(&values)?.taint_x509_upstream_authority(request).await;
    let done = done.context("could not taint X.509 upstream authority")?.into_inner();
    answer(&values, &done, || shown("Tainted", &done.upstream_authority_subject_key_id))
}

async fn revoke(values: Values) -> Outcome {
    let request = RevokeX509UpstreamAuthorityRequest { subject_key_id: subject_key_id(&values)? };
    let done = client(&values)?.revoke_x509_upstream_authority(request).await;
    let done = done.context("could not revoke X.509 upstream authority")?.into_inner();
    answer(&values, &done, || shown("Revoked", &done.upstream_authority_subject_key_id))
}

fn client(values: &Values) -> Result<LocalAuthorityClient<Channel>, Failure> {
    Ok(LocalAuthorityClient::new(SOCKET.channel(values)?))
}

fn subject_key_id(values: &Values) -> Result<String, Failure> {
    let missing = "the Subject Key ID of the X.509 upstream authority is required";
    let id = values.given_text(ID[0].name);
    Ok(id.ok_or_else(|| Failure::new(missing))?.to_owned())
}

fn shown(done: &str, id: &str) -> String {
    format!("{done} X.509 upstream authority:\n  Subject Key ID: {id}\n")
}
