//! Where services are: the block `endpoints { … }` of a plugin.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::net::Ipv6Addr;
use std::path::Path;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use url::{Host, Url};

use crate::config::Reader;

/// Largest file of CA certificates in bytes that is read: several times what a system trusts.
const MAX_BYTES: u64 = 1 << 20;

/// Where a cloud tells its instances about themselves, beside IPv4's link-local addresses: by a name
/// (Google Cloud) and by IPv6 (EC2).
const METADATA_NAME: &str = "metadata.google.internal";
const METADATA_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// The base URL of a service; the service's own paths are appended to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(Url);

impl Endpoint {
    /// Reads a base URL: `https`, or `http` for proxies, private networks and tests.
    ///
    /// # Errors
    /// A sentence that says what it lacks.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| format!("{text:?} is not a URL: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(format!("{text:?} is not an http or https URL"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("a base URL must not hold a user name or a password".to_owned());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(format!("{text:?} has a query or a fragment, which no base URL has"));
        }
        Ok(Self(url))
    }

    /// The URL of `path`, which begins with a slash and may have a query.
    pub fn url(&self, path: &str) -> Url {
        let mut url = self.0.clone();
        let (path, query) = path.split_once('?').map_or((path, None), |(p, q)| (p, Some(q)));
        url.set_path(&format!("{}{path}", self.0.path().trim_end_matches('/')));
        url.set_query(query);
        url
    }

    /// The base URL as it was written, without a slash at its end.
    pub fn as_str(&self) -> &str {
        self.0.as_str().trim_end_matches('/')
    }

    /// Whether the base URL names more than a server.
    pub fn has_path(&self) -> bool {
        !matches!(self.0.path(), "" | "/")
    }

    /// Whether what is sent there can be read on its way. It cannot within this machine, nor on
    /// the way to the cloud's own metadata service, which ends at this machine's host.
    fn is_exposed(&self) -> bool {
        let near = match self.0.host() {
            Some(Host::Domain(name)) => matches!(name, "localhost" | METADATA_NAME),
            Some(Host::Ipv4(address)) => address.is_loopback() || address.is_link_local(),
            Some(Host::Ipv6(address)) => address.is_loopback() || address == METADATA_IPV6,
            None => false,
        };
        self.0.scheme() == "http" && !near
    }

    /// Warns that what is sent there can be read, where `key` has placed it so.
    fn warn_if_exposed(&self, key: &str, reader: &mut Reader<'_>) {
        if self.is_exposed() {
            reader.warn(format!(
                "{} is reached without encryption at {}; use https unless the way there is trusted",
                reader.path_of(key),
                self.as_str()
            ));
        }
    }
}

/// What a plugin's block `endpoints { … }` says. Empty where there is none.
#[derive(Debug, Clone, Default)]
pub struct Endpoints {
    by_name: BTreeMap<&'static str, Endpoint>,
    authorities: Vec<CertificateDer<'static>>,
}

impl Endpoints {
    /// Reads the block out of a plugin's section; `names` are the services that the plugin asks.
    /// An `http` URL off this machine is warned about.
    pub fn read(reader: &mut Reader<'_>, names: &[&'static str]) -> Option<Self> {
        reader.block_or_empty("endpoints", |reader| {
            let mut endpoints = Self::default();
            for name in names {
                let remedy = "write a base URL such as https://ec2.example.org";
                let Some(endpoint) = reader.parsed(name, remedy, Endpoint::parse) else { continue };
                endpoint.warn_if_exposed(name, reader);
                endpoints.by_name.insert(name, endpoint);
            }
            let remedy = "name a readable PEM file with the CA certificates of these endpoints";
            let read = |path: &str| authorities(Path::new(path));
            endpoints.authorities =
                reader.parsed("ca_bundle_path", remedy, read).unwrap_or_default();
            Some(endpoints)
        })
    }

    /// The endpoint of a service, where it is configured.
    pub fn get(&self, name: &str) -> Option<&Endpoint> {
        self.by_name.get(name)
    }

    /// Moves a service to the URL of `key` unless the block has placed it: for keys that are older
    /// than the block. The same is warned about.
    pub fn or_insert(
        &mut self,
        name: &'static str,
        (key, endpoint): (&str, Endpoint),
        reader: &mut Reader<'_>,
    ) {
        if !self.by_name.contains_key(name) {
            endpoint.warn_if_exposed(key, reader);
            self.by_name.insert(name, endpoint);
        }
    }

    /// CA certificates that are trusted beside those of the system, DER.
    pub fn authorities(&self) -> &[CertificateDer<'static>] {
        &self.authorities
    }
}

fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let unable = |why: &dyn std::fmt::Display| format!("unable to load {}: {why}", path.display());
    let mut text = Vec::new();
    let file = File::open(path).map_err(|error| unable(&error))?;
    file.take(MAX_BYTES + 1).read_to_end(&mut text).map_err(|error| unable(&error))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(unable(&format!("it has more than {MAX_BYTES} bytes")));
    }
    let certificates = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unable(&error))?;
    match certificates.is_empty() {
        true => Err(unable(&"no PEM blocks")),
        false => Ok(certificates),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Section;

    fn read(text: &str) -> (Option<Endpoints>, Vec<String>, Vec<String>) {
        let section = Section::parse(text).unwrap();
        let (endpoints, findings) = section.read(|reader| Endpoints::read(reader, &["ec2", "sts"]));
        let mistakes = findings.mistakes.iter().map(|one| one.message.clone()).collect();
        let warnings = findings.warnings.iter().map(|one| one.message.clone()).collect();
        (endpoints, mistakes, warnings)
    }

    #[test]
    fn paths_are_appended_to_the_base() {
        for (base, url) in [
            ("https://ec2.example.org", "https://ec2.example.org/latest/token?a=b"),
            ("https://ec2.example.org/", "https://ec2.example.org/latest/token?a=b"),
            ("http://127.0.0.1:80/proxy/aws/", "http://127.0.0.1/proxy/aws/latest/token?a=b"),
        ] {
            let endpoint = Endpoint::parse(base).unwrap();
            assert_eq!(endpoint.url("/latest/token?a=b").as_str(), url);
        }
        assert!(!Endpoint::parse("https://a.example").unwrap().has_path());
        assert!(Endpoint::parse("https://a.example/b").unwrap().has_path());
    }

    #[test]
    fn what_is_no_base_url_is_refused() {
        for text in ["ec2", "ftp://a", "https://", "https://u:p@a", "https://a?b", "https://a#b"] {
            Endpoint::parse(text).unwrap_err();
        }
    }

    #[test]
    fn the_block_places_services_and_warns_of_open_ways() {
        let (endpoints, mistakes, warnings) =
            read(r#"endpoints { ec2 = "http://10.0.0.1:80", sts = "http://127.0.0.1:1" }"#);
        assert!(mistakes.is_empty(), "{mistakes:?}");
        let endpoints = endpoints.unwrap();
        assert_eq!(endpoints.get("ec2").unwrap().as_str(), "http://10.0.0.1");
        assert_eq!(endpoints.get("iam"), None);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("endpoints.ec2"), "{warnings:?}");
    }

    #[test]
    fn the_clouds_own_metadata_service_is_no_open_way() {
        for (host, is_exposed) in [
            ("169.254.169.254", false),
            ("169.254.170.23:80", false),
            ("[fd00:ec2::254]", false),
            ("metadata.google.internal", false),
            ("localhost:1338", false),
            ("169.255.169.254", true),
            ("[fd00:ec2::255]", true),
            ("metadata.google.internal.example", true),
        ] {
            let (_, _, warnings) = read(&format!("endpoints {{ ec2 = \"http://{host}\" }}"));
            assert_eq!(warnings.len(), usize::from(is_exposed), "{host}: {warnings:?}");
        }
    }

    #[test]
    fn mistakes_of_the_block_are_named() {
        let (_, mistakes, warnings) =
            read("endpoints { ec2 = \"x\", ec3 = \"\", ca_bundle_path = \"/nowhere\" }");
        assert_eq!(mistakes.len(), 2, "{mistakes:?}");
        assert!(mistakes[1].starts_with("unable to load /nowhere: "), "{mistakes:?}");
        assert!(warnings[0].contains("did you mean ec2?"), "{warnings:?}");
        let (_, mistakes, _) = read("endpoints { ca_bundle_path = \"/dev/zero\" }");
        assert_eq!(mistakes, ["unable to load /dev/zero: it has more than 1048576 bytes"]);
        let (endpoints, mistakes, _) = read("");
        assert!(mistakes.is_empty() && endpoints.unwrap().get("ec2").is_none());
    }
}
