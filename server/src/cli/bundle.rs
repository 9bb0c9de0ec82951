//! `bundle`: the trust domain's own bundle, and those of the domains that it federates with.

use spire_core::bundle::Bundle;
use spire_core::command::{
    Command, Context, Failure, Outcome, answer, is_json, print, print_json, read_file,
};
use spire_core::flags::{Flag, Values};
use spire_core::id::TrustDomain;
use spire_core::wire::bundle::batch_delete_federated_bundle_request::Mode;
use spire_core::wire::bundle::bundle_client::BundleClient;
use spire_core::wire::bundle::*;
use spire_core::wire::convert::bundle::{bundle as from_wire, sent};
use spire_core::wire::{json, types};
use tonic::transport::Channel;

use super::{COMMON, SOCKET};

const FORMAT: Flag =
    Flag::text("format", "Format of the bundle: pem, or spiffe for the SPIFFE bundle document")
        .default("pem");
/// Up to v0.12, there was no other format where there was this one.
const DOCUMENT: Flag = FORMAT.default("spiffe");
const PATH: Flag = Flag::text("path", "File with the bundle; without it, standard input is read");
const MODE: Flag = Flag::text(
    "mode",
    "What becomes of entries that federate with the trust domain. restrict: the bundle stays \
     where there are any; delete: they are deleted; dissociate: they federate with it no more",
)
.default("restrict");
const ID: Flag = Flag::text("id", "SPIFFE ID or name of the trust domain");

pub(super) const COMMANDS: &[Command] = &[
    Command::new(
        "bundle count",
        "Counts the bundles that the server holds, its own included.",
        &[COMMON],
        |values| Box::pin(count(values)),
    )
    .example("spire-server bundle count"),
    Command::new(
        "bundle delete",
        "Deletes the bundle of a trust domain that this one federates with.",
        &[COMMON, &[ID, MODE]],
        |values| Box::pin(delete(values)),
    )
    .example("spire-server bundle delete -id partner.test -mode dissociate"),
    Command::new(
        "bundle list",
        "Prints the bundles of the trust domains that this one federates with.",
        &[COMMON, &[ID, FORMAT]],
        |values| Box::pin(list(values)),
    )
    .example("spire-server bundle list -id partner.test -format spiffe"),
    Command::new(
        "bundle set",
        "Creates or replaces the bundle of a trust domain that this one federates with.",
        &[COMMON, &[ID, PATH, FORMAT]],
        |values| Box::pin(set(values)),
    )
    .example("spire-server bundle set -id partner.test -path partner.pem"),
    Command::new(
        "bundle show",
        "Prints the bundle of the server's own trust domain.",
        &[COMMON, &[FORMAT]],
        |values| Box::pin(show(values)),
    )
    .example("spire-server bundle show > bundle.pem"),
    Command::new(
        "experimental bundle list",
        "Former name of bundle list -format spiffe.",
        &[COMMON, &[ID, DOCUMENT]],
        |values| Box::pin(list(values)),
    )
    .former(),
    Command::new(
        "experimental bundle set",
        "Former name of bundle set -format spiffe.",
        &[COMMON, &[ID, PATH, DOCUMENT]],
        |values| Box::pin(set(values)),
    )
    .former(),
    Command::new(
        "experimental bundle show",
        "Former name of bundle show -format spiffe.",
        &[COMMON, &[DOCUMENT]],
        |values| Box::pin(show(values)),
    )
    .former(),
];

/// Bundles in one answer while listing: a bundle is some kilobytes, a message at most 4 MiB.
const PAGE_SIZE: i32 = 100;

async fn show(values: Values) -> Outcome {
    let bundle = client(&values)?.get_bundle(GetBundleRequest::default()).await?.into_inner();
    if is_json(&values) {
        return print_json(&json::to_json(&bundle));
    }
    print(&Format::of(&values)?.write(&bundle)?)
}

async fn list(values: Values) -> Outcome {
    if let Some(id) = values.given_text(ID.name) {
        let trust_domain = TrustDomain::parse(id)?.as_str().to_owned();
        let request = GetFederatedBundleRequest { trust_domain, output_mask: None };
        let bundle = client(&values)?.get_federated_bundle(request).await?.into_inner();
        if is_json(&values) {
            return print_json(&json::to_json(&bundle));
        }
        return print(&Format::of(&values)?.write(&bundle)?);
    }
    let bundles = all_bundles(client(&values)?).await?;
    if is_json(&values) {
        let next_page_token = String::new();
        return print_json(&json::to_json(&ListFederatedBundlesResponse {
            bundles,
            next_page_token,
        }));
    }
    let format = Format::of(&values)?;
    let stars = "*".repeat(40);
    let blocks = bundles.iter().map(|bundle| {
        let data = format.write(bundle)?;
        Ok(format!("{stars}\n* {}\n{stars}\n{data}", bundle.trust_domain))
    });
    print(&blocks.collect::<Result<Vec<_>, Failure>>()?.join("\n"))
}

async fn all_bundles(mut client: BundleClient<Channel>) -> Result<Vec<types::Bundle>, Failure> {
    let mut request = ListFederatedBundlesRequest { page_size: PAGE_SIZE, ..Default::default() };
    let mut bundles = Vec::new();
    loop {
        let page = client.list_federated_bundles(request.clone()).await?.into_inner();
        bundles.extend(page.bundles);
        if page.next_page_token.is_empty() {
            return Ok(bundles);
        }
        request.page_token = page.next_page_token;
    }
}

async fn set(values: Values) -> Outcome {
    let id = values.given_text(ID.name).ok_or_else(|| Failure::new("id flag is required"))?;
    let format = Format::of(&values)?;
    let trust_domain = TrustDomain::parse(id)?;
    let text = read_file(values.given_text(PATH.name).unwrap_or("-"));
    let bundle = format.read(trust_domain, &text.context("unable to load bundle data")?)?;
    let request =
        BatchSetFederatedBundleRequest { bundle: vec![sent(&bundle, None)], output_mask: None };
    let failed = "failed to set federated bundle";
    let response = client(&values)?.batch_set_federated_bundle(request).await.context(failed)?;
    let response = response.into_inner();
    if !is_json(&values) {
        let status = response.results.first().and_then(|result| result.status.as_ref());
        check(status).context(failed)?;
    }
    answer(&values, &response, || "bundle set.\n".to_owned())
}

async fn delete(values: Values) -> Outcome {
    let id = values.given_text(ID.name).ok_or_else(|| Failure::new("id is required"))?;
    let mode = match values.text(MODE.name) {
        "restrict" => Mode::Restrict,
        "delete" => Mode::Delete,
        "dissociate" => Mode::Dissociate,
        other => return Err(Failure::new(format!("unsupported mode {other:?}"))),
    };
    let trust_domain = TrustDomain::parse(id)?.as_str().to_owned();
    let request = BatchDeleteFederatedBundleRequest {
        trust_domains: vec![trust_domain.clone()],
        mode: mode.into(),
    };
    let called = client(&values)?.batch_delete_federated_bundle(request).await;
    let response = called.context("failed to delete federated bundle")?.into_inner();
    if !is_json(&values) {
        let status = response.results.first().and_then(|result| result.status.as_ref());
        check(status).context(format!("failed to delete federated bundle {trust_domain:?}"))?;
    }
    answer(&values, &response, || "bundle deleted.\n".to_owned())
}

async fn count(values: Values) -> Outcome {
    let response = client(&values)?.count_bundles(CountBundlesRequest {}).await?.into_inner();
    let plural = if response.count == 1 { "" } else { "s" };
    answer(&values, &response, || format!("{} bundle{plural}\n", response.count))
}

fn client(values: &Values) -> Result<BundleClient<Channel>, Failure> {
    Ok(BundleClient::new(SOCKET.channel(values)?))
}

/// What became of the only item of a batch.
fn check(status: Option<&types::Status>) -> Outcome {
    match status {
        Some(status) if status.code == 0 => Ok(()),
        Some(status) => Err(Failure::new(&status.message)),
        None => Err(Failure::new("server answered no result")),
    }
}

/// How bundles are written and read.
#[derive(Clone, Copy)]
enum Format {
    Pem,
    Spiffe,
}

impl Format {
    fn of(values: &Values) -> Result<Self, Failure> {
        let text = values.text(FORMAT.name);
        match text.to_ascii_lowercase().as_str() {
            "" | "pem" => Ok(Self::Pem),
            "spiffe" => Ok(Self::Spiffe),
            _ => Err(Failure::new(format!("invalid format: {text:?}"))),
        }
    }

    fn write(self, bundle: &types::Bundle) -> Result<String, Failure> {
        let bundle = from_wire(bundle)?;
        Ok(match self {
            Self::Pem => bundle.to_pem(),
            Self::Spiffe => bundle.to_spiffe_json() + "\n",
        })
    }

    fn read(self, trust_domain: TrustDomain, text: &[u8]) -> Result<Bundle, Failure> {
        match self {
            Self::Pem => {
                Bundle::from_pem(trust_domain, text).context("unable to parse bundle data")
            }
            Self::Spiffe => Bundle::from_spiffe_json(trust_domain, text)
                .context("unable to parse to spiffe bundle"),
        }
    }
}
