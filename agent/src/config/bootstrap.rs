//! The keys that say where the first bundle comes from, and when a stored one is given up.

use std::path::PathBuf;

use reqwest::Url;
use spire_core::config::Reader;

/// Where the first bundle comes from. It is asked anew at every attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BundleSource {
    /// A file.
    File {
        /// Its path.
        path: PathBuf,
        /// How it is written.
        format: BundleFormat,
    },
    /// A web server, or one behind a Unix socket.
    Url {
        /// `https://…`, over a Unix socket `http://…`.
        url: Url,
        /// The Unix socket.
        socket: Option<PathBuf>,
        /// How the answer is written.
        format: BundleFormat,
    },
    /// Another Workload API.
    WorkloadApi {
        /// `unix:<path>` or `tcp://<address>:<port>`.
        address: String,
    },
    /// Nothing: the server that answers first is trusted.
    Insecure,
}

/// How a bundle is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BundleFormat {
    /// PEM certificates.
    #[default]
    Pem,
    /// A SPIFFE bundle document.
    Spiffe,
}

/// When an agent gives up the bundle that it has stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RebootstrapMode {
    /// Never.
    #[default]
    Never,
    /// When the server's authority has been unknown for long enough, where the agent can attest
    /// again.
    Auto,
    /// As `Auto`; an agent that cannot attest again is an error.
    Always,
}

/// Reads `rebootstrap_mode`.
pub(super) fn read_mode(reader: &mut Reader<'_>) -> RebootstrapMode {
    let mode = reader.parsed("rebootstrap_mode", "use never, auto or always", |text| match text {
        "never" => Ok(RebootstrapMode::Never),
        "auto" => Ok(RebootstrapMode::Auto),
        "always" => Ok(RebootstrapMode::Always),
        _ => Err(format!("unknown rebootstrap mode specified: {text}")),
    });
    mode.unwrap_or_default()
}

/// Reads the one source that is set.
pub(super) fn read_source(reader: &mut Reader<'_>, mode: RebootstrapMode) -> Option<BundleSource> {
    let format = read_format(reader);
    let path = reader.string("trust_bundle_path").map(PathBuf::from);
    let url = reader.string("trust_bundle_url");
    let socket = reader.string("trust_bundle_unix_socket").map(PathBuf::from);
    let address = reader.string("trust_bundle_spiffe_workload_api");
    let insecure = reader.flag("insecure_bootstrap");

    let set = [
        ("insecure_bootstrap", insecure),
        ("trust_bundle_url", url.is_some()),
        ("trust_bundle_spiffe_workload_api", address.is_some()),
        ("trust_bundle_path", path.is_some()),
    ];
    let set: Vec<&'static str> =
        set.into_iter().filter(|(_, is_set)| *is_set).map(|(key, _)| key).collect();
    let excess = match set[..] {
        [first, second] => {
            Some(format!("only one of {first} or {second} can be specified, not both"))
        }
        [first, second, third] => Some(format!(
            "only one of {first}, {second}, or {third} can be specified, not the three options"
        )),
        [_, _, _, _] => {
            Some(format!("only one of {} can be specified, not all options", set.join(", ")))
        }
        _ => None,
    };
    if let Some(sentence) = &excess {
        reader.reject(set[0], sentence, "keep one of them");
    }
    if socket.is_some() && url.is_none() {
        reader.reject(
            "trust_bundle_unix_socket",
            "if trust_bundle_unix_socket is specified, so must be trust_bundle_url",
            "set trust_bundle_url to http://host/path as the socket's server expects it",
        );
    }
    if insecure && mode != RebootstrapMode::Never {
        reader.reject(
            "rebootstrap_mode",
            "insecure_bootstrap option can not be used with rebootstrapping",
            "give a bundle instead of insecure_bootstrap",
        );
    }
    let url = match url {
        Some(url) => Some(read_url(reader, &url, socket.is_some())?),
        None => None,
    };
    if excess.is_some() {
        return None;
    }
    match (path, url, address) {
        (Some(path), ..) => Some(BundleSource::File { path, format }),
        (_, Some(url), _) => Some(BundleSource::Url { url, socket, format }),
        (.., Some(address)) => Some(BundleSource::WorkloadApi { address }),
        _ if insecure => Some(BundleSource::Insecure),
        _ => {
            reader.reject(
                "trust_bundle_path",
                "trust_bundle_path, trust_bundle_url, or trust_bundle_spiffe_workload_api must be \
                 configured unless insecure_bootstrap is set",
                "write the output of `spire-server bundle show` to a file and name it here",
            );
            None
        }
    }
}

fn read_format(reader: &mut Reader<'_>) -> BundleFormat {
    let format = reader.parsed("trust_bundle_format", "use pem or spiffe", |text| match text {
        "pem" => Ok(BundleFormat::Pem),
        "spiffe" => Ok(BundleFormat::Spiffe),
        _ => {
            Err("invalid value for trust_bundle_format, expected \"pem\" or \"spiffe\"".to_owned())
        }
    });
    format.unwrap_or_default()
}

fn read_url(reader: &mut Reader<'_>, text: &str, over_socket: bool) -> Option<Url> {
    let key = "trust_bundle_url";
    let (scheme, sentence) = if over_socket {
        (
            "http://",
            "trust bundle URL must start with http:// when used with trust bundle unix socket",
        )
    } else {
        ("https://", "trust bundle URL must start with https://")
    };
    if !text.starts_with(scheme) {
        reader.reject(key, sentence, &format!("write {scheme}host/path"));
        return None;
    }
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(error) => {
            let sentence = format!("unable to parse trust bundle URL: {error}");
            reader.reject(key, &sentence, &format!("write {scheme}host/path"));
            return None;
        }
    };
    for prefix in ["spiffe-", "spire-"] {
        if url.query_pairs().any(|(name, _)| name.starts_with(prefix)) {
            let sentence = format!("trust_bundle_url query params can not start with {prefix}");
            reader.reject(key, &sentence, "rename the parameter: these are the agent's own");
            return None;
        }
    }
    Some(url)
}
