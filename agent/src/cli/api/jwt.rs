//! `api fetch jwt` and `api validate jwt`: the JWT-SVIDs of the calling process, and the check of
//! those that it was shown.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;
use spire_core::command::{
    Command, Context, Failure, OUTPUT, Outcome, answer, is_json, print, print_json,
};
use spire_core::flags::{Flag, Values};
use spire_core::wire::json;
use spire_core::wire::workload::{
    JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
};
use tonic::Code;

use super::{MANNER, PUBLIC_CONNECTION, TIMEOUT, client, first, in_time};

const AUDIENCES: Flag = Flag::list("audience", "Whom the token is for; commas between several");
const SPIFFE_ID: Flag =
    Flag::text("spiffeID", "SPIFFE ID of the token; without it, one of each identity is fetched");
const FORMAT: Flag = Flag { name: "format", usage: "Deprecated: use -output", ..OUTPUT };
const AUDIENCE: Flag = Flag::text("audience", "Audience that the token must be for");
const SVID: Flag = Flag::text("svid", "The token");

pub(in crate::cli) const COMMANDS: &[Command] = &[
    Command::new(
        "api fetch jwt",
        "Fetches JWT-SVIDs from the Workload API.",
        &[PUBLIC_CONNECTION, &[AUDIENCES, SPIFFE_ID, TIMEOUT, OUTPUT, FORMAT]],
        |values| Box::pin(fetch(values)),
    )
    .named("fetch jwt")
    .manner(MANNER)
    .example("spire-agent api fetch jwt -audience db"),
    Command::new(
        "api validate jwt",
        "Checks a JWT-SVID by the Workload API.",
        &[PUBLIC_CONNECTION, &[AUDIENCE, SVID, TIMEOUT, OUTPUT]],
        |values| Box::pin(validate(values)),
    )
    .named("validate jwt")
    .manner(MANNER)
    .example("spire-agent api validate jwt -audience db -svid eyJhbGciOi..."),
];

async fn fetch(values: Values) -> Outcome {
    // Given twice, the last one counts: scripts rely on it.
    let audience: Vec<String> = match values.text(AUDIENCES.name) {
        "" => return Err(no_audience()),
        list => list.split(',').map(str::to_owned).collect(),
    };
    let spiffe_id = values.text(SPIFFE_ID.name).to_owned();
    let mut client = client(&values)?;
    let mut caller = client.clone();
    let call =
        async { first(caller.fetch_jwt_bundles(JwtBundlesRequest {}).await?.into_inner()).await };
    let bundles = in_time(&values, call).await.context("failed to receive JWT bundles")?;
    let call = client.fetch_jwtsvid(JwtsvidRequest { audience, spiffe_id });
    let svids = in_time(&values, call).await?.into_inner();

    let in_old_spelling = !values.is_given(OUTPUT.name) && values.text(FORMAT.name) == "json";
    if is_json(&values) || in_old_spelling {
        return print_json(&Value::Array(vec![json::to_json(&svids), json::to_json(&bundles)]));
    }
    print(&report(&svids, &bundles))
}

fn report(svids: &JwtsvidResponse, bundles: &JwtBundlesResponse) -> String {
    let mut text = String::new();
    for svid in &svids.svids {
        let _ = writeln!(text, "token({}):\n\t{}", svid.spiffe_id, svid.svid);
        if !svid.hint.is_empty() {
            let _ = writeln!(text, "hint({}):\n\t{}", svid.spiffe_id, svid.hint);
        }
    }
    for (id, keys) in BTreeMap::from_iter(&bundles.bundles) {
        let _ = writeln!(text, "bundle({id}):\n\t{}", String::from_utf8_lossy(keys));
    }
    text
}

async fn validate(values: Values) -> Outcome {
    let audience = values.given_text(AUDIENCE.name).ok_or_else(no_audience)?.to_owned();
    let svid = values.given_text(SVID.name);
    let svid = svid.ok_or_else(|| Failure::new("svid must be specified"))?.to_owned();
    let mut client = client(&values)?;
    let call = client.validate_jwtsvid(ValidateJwtsvidRequest { audience, svid });
    let valid = match in_time(&values, call).await {
        Ok(valid) => valid.into_inner(),
        Err(status) if status.code() == Code::InvalidArgument => {
            return Err(Failure::new(format!("SVID is not valid: {}", status.message())));
        }
        Err(status) => return Err(status).context("unable to validate JWT SVID"),
    };
    answer(&values, &valid, || {
        let claims = json::line(&json::to_json(&valid)["claims"]);
        format!("SVID is valid.\nSPIFFE ID : {}\nClaims    : {claims}\n", valid.spiffe_id)
    })
}

fn no_audience() -> Failure {
    Failure::new("audience must be specified")
}
