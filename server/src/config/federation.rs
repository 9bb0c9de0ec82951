//! `federation { … }`: our bundle for others, and where theirs are.
//!
//! The forms of v0.8 to v0.12 are translated, each with one warning.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use spire_core::config::{FromSection, Reader};
use spire_core::id::{SpiffeId, TrustDomain};

const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
const DEFAULT_REFRESH_HINT: Duration = Duration::from_mins(5);
const DEFAULT_FILE_SYNC: Duration = Duration::from_hours(1);
const PROFILES: &str = "use \"https_spiffe\" or \"https_web\"";

/// Both directions of federation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FederationConfig {
    /// Where our bundle is published.
    pub bundle_endpoint: Option<BundleEndpointConfig>,
    /// Whose bundles are fetched.
    pub federates_with: Vec<FederatesWith>,
}

/// `bundle_endpoint { … }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleEndpointConfig {
    /// Where it listens; every address where it is absent.
    pub address: Option<IpAddr>,
    /// Its port.
    pub port: u16,
    /// How long others may keep the bundle before they ask again.
    pub refresh_hint: Duration,
    /// How it proves itself.
    pub profile: BundleEndpointProfile,
}

/// How the endpoint for our bundle proves itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BundleEndpointProfile {
    /// By the server's own SVID.
    HttpsSpiffe,
    /// By a certificate of the web that ACME provides.
    Acme(AcmeConfig),
    /// By a certificate of the web that lies in files.
    Files(ServingFiles),
}

/// `acme { … }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeConfig {
    /// The directory of the authority.
    pub directory_url: String,
    /// The name in the certificate.
    pub domain_name: String,
    /// Whom the authority may write to.
    pub email: String,
    /// Whether the authority's terms are accepted.
    pub tos_accepted: bool,
}

/// `serving_cert_file { … }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServingFiles {
    /// The certificate and its chain, PEM.
    pub cert_file_path: PathBuf,
    /// The private key, PEM.
    pub key_file_path: PathBuf,
    /// How often the files are looked at again.
    pub file_sync_interval: Duration,
}

/// `federates_with "<trust domain>" { … }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FederatesWith {
    /// The other trust domain.
    pub trust_domain: TrustDomain,
    /// Where its bundle is, with `https://`.
    pub bundle_endpoint_url: String,
    /// How its endpoint proves itself.
    pub profile: FederationProfile,
}

/// How another trust domain's endpoint proves itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FederationProfile {
    /// By a certificate of the web.
    HttpsWeb,
    /// By an SVID with this ID.
    HttpsSpiffe {
        /// Whose SVID it is.
        endpoint_spiffe_id: SpiffeId,
    },
}

impl FederationConfig {
    /// This one, filled up with what an older spelling says.
    pub(super) fn or(self, former: Self) -> Self {
        let mut federates_with = self.federates_with;
        federates_with.extend(former.federates_with);
        Self { bundle_endpoint: self.bundle_endpoint.or(former.bundle_endpoint), federates_with }
    }
}

impl FromSection for FederationConfig {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        reader.tolerate_unknown();
        Some(Self {
            bundle_endpoint: reader.block("bundle_endpoint"),
            federates_with: reader.labelled("federates_with", read_federates_with),
        })
    }
}

impl FromSection for BundleEndpointConfig {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        reader.refuse_unknown("bundle endpoint");
        let address = read_address(reader, "address");
        let port = reader.integer("port").unwrap_or(0);
        let hint = reader.duration("refresh_hint", "refresh_hint");
        let refresh_hint = hint.unwrap_or(DEFAULT_REFRESH_HINT);
        if refresh_hint >= Duration::from_hours(24) {
            reader.warn("refresh_hint is 24h or more: others learn late of changed authorities");
        } else if refresh_hint < Duration::from_mins(1) {
            reader.warn("refresh_hint is below 1m: others will ask at most once a minute");
        }
        let acme: Option<AcmeConfig> = reader.block("acme");
        let has_profile = reader.has("profile");
        let profiles = reader.labelled("profile", read_endpoint_profile);
        let profile = match (acme, has_profile) {
            (Some(_), true) => {
                reader.reject(
                    "acme",
                    "acme and profile cannot both be configured in bundle_endpoint",
                    "move acme into profile \"https_web\" { acme { … } }",
                );
                None
            }
            (Some(acme), false) => {
                reader.deprecated(
                    "acme in bundle_endpoint is deprecated; use profile \"https_web\" { acme { … } }",
                    "acme",
                );
                Some(BundleEndpointProfile::Acme(acme))
            }
            (None, false) => {
                reader.warn(
                    "bundle_endpoint without profile is deprecated; use profile \"https_spiffe\" {}",
                );
                Some(BundleEndpointProfile::HttpsSpiffe)
            }
            (None, true) => only(reader, "profile", profiles, EXACTLY_ONE),
        };
        Some(Self { address, port, refresh_hint, profile: profile? })
    }
}

const EXACTLY_ONE: &str = "exactly one bundle endpoint profile is expected";

/// The single one of `profiles`; a profile that could not be read was reported already.
fn only<T>(
    reader: &mut Reader<'_>,
    key: &'static str,
    mut profiles: Vec<T>,
    sentence: &str,
) -> Option<T> {
    if profiles.len() > 1 || (profiles.is_empty() && !reader.is_mistaken_below(key)) {
        reader.reject(key, sentence, PROFILES);
    }
    profiles.pop()
}

fn read_address(reader: &mut Reader<'_>, key: &'static str) -> Option<IpAddr> {
    let text = reader.string(key)?;
    let address = text.parse().ok();
    if address.is_none() {
        reader.warn(format!("{key} {text:?} is no IP address; the endpoint listens on all"));
    }
    address
}

fn read_endpoint_profile(label: &str, reader: &mut Reader<'_>) -> Option<BundleEndpointProfile> {
    match label {
        "https_spiffe" => Some(BundleEndpointProfile::HttpsSpiffe),
        "https_web" => {
            let acme = reader.block("acme").map(BundleEndpointProfile::Acme);
            let files = reader.block("serving_cert_file").map(BundleEndpointProfile::Files);
            let profile = acme.or(files);
            if profile.is_none() && !reader.has("acme") && !reader.has("serving_cert_file") {
                reader.reject(
                    "acme",
                    "malformed https_web profile configuration: 'acme' or 'serving_cert_file' is \
                     required",
                    "add one of the two blocks",
                );
            }
            profile
        }
        _ => {
            refuse_profile(reader, label);
            None
        }
    }
}

fn refuse_profile(reader: &mut Reader<'_>, label: &str) {
    reader.tolerate_unknown();
    let sentence = format!("unknown bundle endpoint profile configured: {label:?}");
    reader.reject_section(&sentence, PROFILES);
}

impl FromSection for AcmeConfig {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        reader.refuse_unknown("bundle endpoint ACME");
        Some(Self {
            directory_url: reader
                .string("directory_url")
                .unwrap_or_else(|| LETS_ENCRYPT.to_owned()),
            domain_name: reader.string("domain_name").unwrap_or_default(),
            email: reader.string("email").unwrap_or_default(),
            tos_accepted: reader.flag("tos_accepted"),
        })
    }
}

impl FromSection for ServingFiles {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let certificate = reader.required("cert_file_path", "cert_file_path must be configured");
        let key = reader.required("key_file_path", "key_file_path must be configured");
        let interval = reader.duration("file_sync_interval", "file_sync_interval");
        Some(Self {
            cert_file_path: certificate?.into(),
            key_file_path: key?.into(),
            file_sync_interval: interval.unwrap_or(DEFAULT_FILE_SYNC),
        })
    }
}

fn read_trust_domain(reader: &mut Reader<'_>, label: &str) -> Option<TrustDomain> {
    TrustDomain::parse(label)
        .map_err(|error| {
            let sentence =
                format!("could not parse trust domain {label:?} of federates_with: {error}");
            reader.reject_section(&sentence, "write a name such as partner.org");
        })
        .ok()
}

fn read_federates_with(label: &str, reader: &mut Reader<'_>) -> Option<FederatesWith> {
    reader.tolerate_unknown();
    let trust_domain = read_trust_domain(reader, label);
    if reader.has("bundle_endpoint") {
        let former = reader.block_with("bundle_endpoint", |reader| {
            read_former(reader, trust_domain.as_ref(), ["address", "port", "spiffe_id"])
        });
        reader.deprecated(
            "bundle_endpoint in federates_with is deprecated; use bundle_endpoint_url and \
             bundle_endpoint_profile",
            "bundle_endpoint",
        );
        let (bundle_endpoint_url, profile) = former?;
        return Some(FederatesWith { trust_domain: trust_domain?, bundle_endpoint_url, profile });
    }
    let url = read_url(reader, label);
    let key = "bundle_endpoint_profile";
    let prefix = format!("error parsing federation relationship for trust domain {label:?}");
    let profile = if reader.has(key) {
        let profiles = reader.labelled(key, |name, reader| read_profile(name, reader, &prefix));
        only(reader, key, profiles, &format!("{prefix}: {EXACTLY_ONE}"))
    } else {
        let sentence = format!(
            "federation configuration for trust domain {label:?}: missing bundle endpoint \
             configuration"
        );
        reader.reject(key, &sentence, "add bundle_endpoint_profile \"https_web\" {}");
        None
    };
    Some(FederatesWith {
        trust_domain: trust_domain?,
        bundle_endpoint_url: url?,
        profile: profile?,
    })
}

fn read_url(reader: &mut Reader<'_>, label: &str) -> Option<String> {
    let key = "bundle_endpoint_url";
    let name = format!("federation.federates_with[{label:?}].{key}");
    let url = reader.required(key, &format!("{name} must be configured"))?;
    let scheme = url.parse::<Uri>().ok().and_then(|uri| uri.scheme_str().map(str::to_owned));
    if scheme.as_deref() != Some("https") {
        let sentence = format!("{name} must use the HTTPS protocol; URL found: {url:?}");
        reader.reject(key, &sentence, "write https://host[:port]/path");
        return None;
    }
    Some(url)
}

fn read_profile(name: &str, reader: &mut Reader<'_>, prefix: &str) -> Option<FederationProfile> {
    match name {
        "https_web" => Some(FederationProfile::HttpsWeb),
        "https_spiffe" => {
            let key = "endpoint_spiffe_id";
            let text = reader.string(key).unwrap_or_default();
            match SpiffeId::parse(&text) {
                Ok(endpoint_spiffe_id) => {
                    Some(FederationProfile::HttpsSpiffe { endpoint_spiffe_id })
                }
                Err(error) => {
                    let sentence = format!("{prefix}: could not get endpoint SPIFFE ID: {error}");
                    reader.reject(key, &sentence, "write the ID of the other server's endpoint");
                    None
                }
            }
        }
        _ => {
            refuse_profile(reader, name);
            None
        }
    }
}

/// An endpoint as v0.8 to v1.0 wrote it: address, port, ID and whether the web's PKI is used.
fn read_former(
    reader: &mut Reader<'_>,
    trust_domain: Option<&TrustDomain>,
    [address, port, spiffe_id]: [&'static str; 3],
) -> Option<(String, FederationProfile)> {
    let host = reader.required(address, &format!("{address} must be configured"));
    let port: u16 = reader.integer(port).filter(|port| *port != 0).unwrap_or(443);
    let use_web_pki = reader.flag("use_web_pki");
    let id = reader.parsed(spiffe_id, "write spiffe://domain/path", |text| {
        SpiffeId::parse(text)
            .map_err(|error| format!("could not parse {spiffe_id} {text:?}: {error}"))
    });
    let profile = match (use_web_pki, id) {
        (true, None) => FederationProfile::HttpsWeb,
        (true, Some(_)) => {
            let sentence =
                format!("usage of `use_web_pki` and `{spiffe_id}` is mutually exclusive");
            reader.reject(spiffe_id, &sentence, "remove one of the two");
            return None;
        }
        (false, id) => {
            let id = id.or_else(|| trust_domain.map(TrustDomain::server_id));
            FederationProfile::HttpsSpiffe { endpoint_spiffe_id: id? }
        }
    };
    Some((format!("https://{}:{port}", host?), profile))
}

/// Federation as the block `experimental` held it up to v0.12.
pub(super) fn read_experimental(reader: &mut Reader<'_>) -> FederationConfig {
    let enabled = reader.boolean("bundle_endpoint_enabled");
    let address = read_address(reader, "bundle_endpoint_address");
    let port = reader.integer("bundle_endpoint_port").unwrap_or(443);
    let acme: Option<AcmeConfig> = reader.block("bundle_endpoint_acme");
    if enabled.is_some() {
        reader.deprecated(
            "bundle_endpoint_enabled, _address, _port and _acme in experimental are deprecated; \
             use federation { bundle_endpoint { … } }",
            "bundle_endpoint_enabled",
        );
    }
    let bundle_endpoint = (enabled == Some(true)).then(|| BundleEndpointConfig {
        address,
        port,
        refresh_hint: DEFAULT_REFRESH_HINT,
        profile: acme.map_or(BundleEndpointProfile::HttpsSpiffe, BundleEndpointProfile::Acme),
    });
    let federates_with = reader.labelled("federates_with", |label, reader| {
        let trust_domain = read_trust_domain(reader, label);
        let keys = ["bundle_endpoint_address", "bundle_endpoint_port", "bundle_endpoint_spiffe_id"];
        let former = read_former(reader, trust_domain.as_ref(), keys);
        let (bundle_endpoint_url, profile) = former?;
        Some(FederatesWith { trust_domain: trust_domain?, bundle_endpoint_url, profile })
    });
    if reader.has("federates_with") {
        reader.deprecated(
            "federates_with in experimental is deprecated; use federation { federates_with … }",
            "federates_with",
        );
    }
    FederationConfig { bundle_endpoint, federates_with }
}
