//! `localauthority`: this server's own authorities, looked at and turned out of turn.

use spire_core::command::{Command, Context, Failure, Outcome, answer, utc_time};
use spire_core::flags::{Flag, Values};
use spire_core::wire::local_authority::local_authority_client::LocalAuthorityClient;
use spire_core::wire::local_authority::*;
use tonic::transport::Channel;

use super::{COMMON, SOCKET};

const ID: &[Flag] = &[Flag::text("authorityID", "Authority ID of the authority that is meant")];

pub(super) const COMMANDS: &[Command] = &[
    Command::new(
        "localauthority jwt activate",
        "Lets the prepared key sign JWT-SVIDs from now on.",
        &[COMMON, ID],
        |values| Box::pin(activate_jwt(values)),
    )
    .example("spire-server localauthority jwt activate -authorityID ID"),
    Command::new(
        "localauthority jwt prepare",
        "Makes the next key for JWT-SVIDs and publishes it.",
        &[COMMON],
        |values| Box::pin(prepare_jwt(values)),
    )
    .example("spire-server localauthority jwt prepare"),
    Command::new(
        "localauthority jwt revoke",
        "Takes a tainted key out of the bundle: what it signed holds no more.",
        &[COMMON, ID],
        |values| Box::pin(revoke_jwt(values)),
    )
    .example("spire-server localauthority jwt revoke -authorityID ID"),
    Command::new(
        "localauthority jwt show",
        "Shows the keys that sign JWT-SVIDs: the active, the prepared and the old one.",
        &[COMMON],
        |values| Box::pin(show_jwt(values)),
    )
    .example("spire-server localauthority jwt show"),
    Command::new(
        "localauthority jwt taint",
        "Has all JWT-SVIDs replaced that the old key signed.",
        &[COMMON, ID],
        |values| Box::pin(taint_jwt(values)),
    )
    .example("spire-server localauthority jwt taint -authorityID ID"),
    Command::new(
        "localauthority x509 activate",
        "Lets the prepared authority sign X.509-SVIDs from now on.",
        &[COMMON, ID],
        |values| Box::pin(activate_x509(values)),
    )
    .example("spire-server localauthority x509 activate -authorityID ID"),
    Command::new(
        "localauthority x509 prepare",
        "Makes the next authority for X.509-SVIDs and publishes what they are checked by.",
        &[COMMON],
        |values| Box::pin(prepare_x509(values)),
    )
    .example("spire-server localauthority x509 prepare"),
    Command::new(
        "localauthority x509 revoke",
        "Takes a tainted authority out of the bundle: what it signed holds no more.",
        &[COMMON, ID],
        |values| Box::pin(revoke_x509(values)),
    )
    .example("spire-server localauthority x509 revoke -authorityID ID"),
    Command::new(
        "localauthority x509 show",
        "Shows the authorities that sign X.509-SVIDs: the active, the prepared and the old one.",
        &[COMMON],
        |values| Box::pin(show_x509(values)),
    )
    .example("spire-server localauthority x509 show"),
    Command::new(
        "localauthority x509 taint",
        "Has all X.509-SVIDs replaced that the old authority signed.",
        &[COMMON, ID],
        |values| Box::pin(taint_x509(values)),
    )
    .example("spire-server localauthority x509 taint -authorityID ID"),
];

/// What the authorities of a kind are called, and how one is shown.
struct Kind {
    name: &'static str,
    has_upstream: bool,
}

const X509: Kind = Kind { name: "X.509", has_upstream: true };
const JWT: Kind = Kind { name: "JWT", has_upstream: false };

async fn show_x509(values: Values) -> Outcome {
    let shown = client(&values)?.get_x509_authority_state(GetX509AuthorityStateRequest {}).await;
    let shown = shown.context("could not get X.509 authorities")?.into_inner();
    let slots = [&shown.active, &shown.prepared, &shown.old];
    answer(&values, &shown, || X509.all(slots))
}

async fn show_jwt(values: Values) -> Outcome {
    let shown = client(&values)?.get_jwt_authority_state(GetJwtAuthorityStateRequest {}).await;
    let shown = shown?.into_inner();
    let slots = [&shown.active, &shown.prepared, &shown.old];
    answer(&values, &shown, || JWT.all(slots))
}

async fn prepare_x509(values: Values) -> Outcome {
    let done = client(&values)?.prepare_x509_authority(PrepareX509AuthorityRequest {}).await;
    let done = done.context(X509.could_not("prepare"))?.into_inner();
    answer(&values, &done, || X509.one("Prepared", &done.prepared_authority))
}

async fn prepare_jwt(values: Values) -> Outcome {
    let done = client(&values)?.prepare_jwt_authority(PrepareJwtAuthorityRequest {}).await;
    let done = done.context(JWT.could_not("prepare"))?.into_inner();
    answer(&values, &done, || JWT.one("Prepared", &done.prepared_authority))
}

async fn activate_x509(values: Values) -> Outcome {
    let request = ActivateX509AuthorityRequest { authority_id: authority_id(&values)? };
    let done = client(&values)?.activate_x509_authority(request).await;
    let done = done.context(X509.could_not("activate"))?.into_inner();
    answer(&values, &done, || X509.one("Activated", &done.activated_authority))
}

async fn activate_jwt(values: Values) -> Outcome {
    let request = ActivateJwtAuthorityRequest { authority_id: authority_id(&values)? };
    let done = client(&values)?.activate_jwt_authority(request).await;
    let done = done.context(JWT.could_not("activate"))?.into_inner();
    answer(&values, &done, || JWT.one("Activated", &done.activated_authority))
}

async fn taint_x509(values: Values) -> Outcome {
    let request = TaintX509AuthorityRequest { authority_id: authority_id(&values)? };
    let done = client(&values)?.taint_x509_authority(request).await;
    let done = done.context(X509.could_not("taint"))?.into_inner();
    answer(&values, &done, || X509.one("Tainted", &done.tainted_authority))
}

async fn taint_jwt(values: Values) -> Outcome {
    let request = TaintJwtAuthorityRequest { authority_id: authority_id(&values)? };
    let done = client(&values)?.taint_jwt_authority(request).await;
    let done = done.context(JWT.could_not("taint"))?.into_inner();
    answer(&values, &done, || JWT.one("Tainted", &done.tainted_authority))
}

async fn revoke_x509(values: Values) -> Outcome {
    let request = RevokeX509AuthorityRequest { authority_id: authority_id(&values)? };
    let done = client(&values)?.revoke_x509_authority(request).await;
    let done = done.context(X509.could_not("revoke"))?.into_inner();
    answer(&values, &done, || X509.one("Revoked", &done.revoked_authority))
}

async fn revoke_jwt(values: Values) -> Outcome {
    let request = RevokeJwtAuthorityRequest { authority_id: authority_id(&values)? };
    let done = client(&values)?.revoke_jwt_authority(request).await;
    let done = done.context(JWT.could_not("revoke"))?.into_inner();
    answer(&values, &done, || JWT.one("Revoked", &done.revoked_authority))
}

fn client(values: &Values) -> Result<LocalAuthorityClient<Channel>, Failure> {
    Ok(LocalAuthorityClient::new(SOCKET.channel(values)?))
}

fn authority_id(values: &Values) -> Result<String, Failure> {
    let id = values.given_text(ID[0].name);
    Ok(id.ok_or_else(|| Failure::new("an authority ID is required"))?.to_owned())
}

impl Kind {
    fn could_not(&self, verb: &str) -> String {
        format!("could not {verb} {} authority", self.name)
    }

    fn all(&self, [active, prepared, old]: [&Option<AuthorityState>; 3]) -> String {
        let slots = [("Active", active), ("Prepared", prepared), ("Old", old)];
        slots.map(|(slot, state)| self.one(slot, state)).join("\n")
    }

    /// `what` is the slot, or what was done.
    fn one(&self, what: &str, state: &Option<AuthorityState>) -> String {
        let name = self.name;
        let mut text = format!("{what} {name} authority:\n");
        let Some(state) = state else {
            let slot = what.to_lowercase();
            return text + &format!("  No {slot} {name} authority found\n");
        };
        text += &format!("  Authority ID: {}\n", state.authority_id);
        text += &format!("  Expires at: {}\n", utc_time(state.expires_at));
        if self.has_upstream {
            text += &match state.upstream_authority_subject_key_id.as_str() {
                "" => "  Upstream authority ID: No upstream authority\n".to_owned(),
                id => format!("  Upstream authority Subject Key ID: {id}\n"),
            };
        }
        text
    }
}
