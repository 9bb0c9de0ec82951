//! The server's section, as checked.

use std::path::Path;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use spire_core::config::{FromSection, Reader};
use spire_core::path_template::PathTemplate;

use super::chain::Roots;

const PKI_PATH: &str = "/{{ .PluginName }}/{{ .Fingerprint }}";
const SVID_PATH: &str = "/{{ .PluginName }}/{{ .SVIDPathTrimmed }}";
const SVID_PREFIX: &str = "/spire-exchange/";
const MAX_INTERMEDIATES: usize = 4;
const MAX_RSA_KEY_SIZE: u32 = 8192;

/// How nodes are verified.
pub(super) struct Config {
    pub(super) trust: Trust,
    pub(super) agent_path_template: PathTemplate,
    pub(super) max_intermediates: usize,
    /// In bits.
    pub(super) max_rsa_key_size: u32,
    /// Whether a node must connect from an address that its certificate names.
    pub(super) verify_client_ip: bool,
}

/// Whose certificates are taken.
pub(super) enum Trust {
    /// An operator's PKI.
    Pki(Roots),
    /// This trust domain itself: an SVID whose path begins with a prefix.
    Bundle {
        /// Begins and ends with a slash.
        svid_prefix: String,
    },
}

impl FromSection for Config {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        reader.renamed("svid_prefix", "spiffe_prefix");
        let trust = read_trust(reader);
        let default_path =
            if matches!(trust, Some(Trust::Bundle { .. })) { SVID_PATH } else { PKI_PATH };
        let template = PathTemplate::read_of_paths(reader, default_path);
        let max_intermediates = positive(reader, "max_intermediates").unwrap_or(MAX_INTERMEDIATES);
        let max_rsa_key_size = positive(reader, "max_rsa_key_size").unwrap_or(MAX_RSA_KEY_SIZE);
        let verify_client_ip = reader.flag("verify_client_ip");
        Some(Self {
            trust: trust?,
            agent_path_template: template?,
            max_intermediates,
            max_rsa_key_size,
            verify_client_ip,
        })
    }
}

fn read_trust(reader: &mut Reader<'_>) -> Option<Trust> {
    let mode = reader.string("mode").unwrap_or_else(|| "external_pki".to_owned());
    let path = reader.string("ca_bundle_path");
    let paths = reader.strings("ca_bundle_paths").unwrap_or_default();
    let prefix = reader.string("spiffe_prefix");
    match (mode.as_str(), path, paths.is_empty()) {
        ("spiffe", None, true) => {
            let mut svid_prefix = prefix.unwrap_or_else(|| SVID_PREFIX.to_owned());
            if !svid_prefix.ends_with('/') {
                svid_prefix.push('/');
            }
            Some(Trust::Bundle { svid_prefix })
        }
        ("spiffe", ..) => {
            let sentence = "you can not use ca_bundle_path or ca_bundle_paths in 'spiffe' mode";
            reject(reader, "mode", sentence, "remove the CA bundle, or set mode to external_pki")
        }
        ("external_pki", Some(path), true) => read_roots(reader, "ca_bundle_path", &[path]),
        ("external_pki", None, false) => read_roots(reader, "ca_bundle_paths", &paths),
        ("external_pki", Some(_), false) => {
            let sentence =
                "only one of ca_bundle_path or ca_bundle_paths can be configured, not both";
            reject(reader, "ca_bundle_path", sentence, "remove one of them")
        }
        ("external_pki", None, true) => {
            let sentence = "one of ca_bundle_path or ca_bundle_paths must be configured";
            reject(
                reader,
                "ca_bundle_path",
                sentence,
                "name the PEM file with your CA certificates",
            )
        }
        _ => {
            let sentence = "mode can only be either 'spiffe' or 'external_pki'";
            reject(reader, "mode", sentence, "set it to one of the two")
        }
    }
}

fn read_roots(reader: &mut Reader<'_>, key: &'static str, paths: &[String]) -> Option<Trust> {
    let mut certificates = Vec::new();
    for path in paths {
        match read_certificates(Path::new(path)) {
            Ok(found) => certificates.extend(found),
            Err(error) => {
                let sentence = format!("unable to load trust bundle {path:?}: {error}");
                return reject(reader, key, &sentence, "name a readable file of PEM certificates");
            }
        }
    }
    match Roots::new(certificates) {
        Ok(roots) => Some(Trust::Pki(roots)),
        Err(error) => {
            let sentence = format!("unable to load trust bundle: {error}");
            reject(reader, key, &sentence, "replace the certificate that cannot be read")
        }
    }
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = std::fs::read(path).map_err(|error| error.to_string())?;
    let certificates = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| error.to_string())?;
    if certificates.is_empty() { Err("no PEM blocks".to_owned()) } else { Ok(certificates) }
}

fn positive<T: TryFrom<i64>>(reader: &mut Reader<'_>, key: &'static str) -> Option<T> {
    let number = reader.integer::<i64>(key)?;
    let usable = T::try_from(number).ok().filter(|_| number > 0);
    usable.or_else(|| {
        reject(reader, key, &format!("{key} must be greater than 0"), "set it to 1 or more")
    })
}

fn reject<T>(
    reader: &mut Reader<'_>,
    key: &'static str,
    sentence: &str,
    remedy: &str,
) -> Option<T> {
    reader.reject(key, sentence, remedy);
    None
}
