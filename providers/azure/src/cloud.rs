//! The clouds that Microsoft runs apart from each other, and where each of them is asked.

use spire_core::config::Reader;
use spire_core::remote::{Endpoint, Endpoints};
use url::Url;

use crate::metadata;

/// Names the login service of a cloud, as all of Azure's clients take it.
const AUTHORITY_HOST: &str = "AZURE_AUTHORITY_HOST";

/// One of the clouds. Identities, tokens and machines of one mean nothing in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cloud {
    /// Azure.
    Public,
    /// Azure for the government of the United States.
    Government,
    /// Azure in China, run by 21Vianet.
    China,
}

impl Cloud {
    const ALL: [Self; 3] = [Self::Public, Self::Government, Self::China];

    /// The cloud whose login service or Resource Manager is at `endpoint` by its own name.
    fn of(endpoint: &Endpoint) -> Option<Self> {
        let url = endpoint.url("/");
        let host = url.host_str()?;
        Self::ALL.into_iter().find(|cloud| {
            cloud.login_hosts().contains(&host) || cloud.resource_manager_host() == host
        })
    }

    /// Names of the login service, the usual one first.
    pub(crate) fn login_hosts(self) -> &'static [&'static str] {
        match self {
            Self::Public => &["login.microsoftonline.com", "login.windows.net"],
            Self::Government => &["login.microsoftonline.us"],
            Self::China => &["login.chinacloudapi.cn", "login.partner.microsoftonline.cn"],
        }
    }

    /// The name of Azure Resource Manager.
    pub(crate) fn resource_manager_host(self) -> &'static str {
        match self {
            Self::Public => "management.azure.com",
            Self::Government => "management.usgovcloudapi.net",
            Self::China => "management.chinacloudapi.cn",
        }
    }

    /// What tokens for Azure Resource Manager are asked for.
    pub(crate) fn resource_manager_scope(self) -> String {
        format!("https://{}/.default", self.resource_manager_host())
    }

    /// What the ID of a tenant stands behind in the issuer of tokens of version 1.
    fn issuer_prefix(self) -> &'static str {
        match self {
            Self::Public | Self::Government => "https://sts.windows.net/",
            Self::China => "https://sts.chinacloudapi.cn/",
        }
    }

    /// The issuers that tokens of a tenant may name.
    pub(crate) fn issuers(self, tenant_id: &str) -> Vec<String> {
        let version_2 =
            self.login_hosts().iter().map(|host| format!("https://{host}/{tenant_id}/v2.0"));
        [format!("{}{tenant_id}/", self.issuer_prefix())].into_iter().chain(version_2).collect()
    }

    /// The tenant that an issuer of version 1 names.
    pub(crate) fn tenant_of(self, issuer: &str) -> Option<&str> {
        let tenant = issuer.strip_prefix(self.issuer_prefix())?.strip_suffix('/')?;
        is_uuid(tenant).then_some(tenant)
    }

    /// The domain below which certificates of its metadata services are.
    pub(crate) fn metadata_domain(self) -> &'static str {
        match self {
            Self::Public => "metadata.azure.com",
            Self::Government => "metadata.azure.us",
            Self::China => "metadata.azure.cn",
        }
    }

    /// The hosts that give away certificates of the CAs of its metadata services.
    pub(crate) fn issuer_hosts(self) -> &'static [&'static str] {
        match self {
            Self::Public | Self::Government => &["www.microsoft.com"],
            Self::China => &["www.microsoft.com", "cacerts.digicert.cn", "cacerts.digicert.com"],
        }
    }
}

/// Where Azure's services are, and of which cloud they are.
#[derive(Debug, Clone)]
pub(crate) struct Services {
    pub(crate) cloud: Cloud,
    /// Microsoft Entra.
    pub(crate) login: Endpoint,
    pub(crate) resource_manager: Endpoint,
    /// All that the block says.
    pub(crate) endpoints: Endpoints,
}

impl Services {
    /// Reads the block `endpoints`, which may place the services in `more` beside the usual ones.
    /// The first of these that is one of a cloud's own services tells the cloud, and the others
    /// follow: the login service of the block, that of the environment, and the Resource Manager of
    /// the block.
    pub(crate) fn read(reader: &mut Reader<'_>, more: &[&'static str]) -> Option<Self> {
        let usual = [metadata::ENDPOINT, "login", "resource_manager"];
        let endpoints = Endpoints::read(reader, &[&usual[..], more].concat())?;
        let environment = std::env::var(AUTHORITY_HOST).ok();
        match Self::new(endpoints, environment.as_deref()) {
            Ok(services) => Some(services),
            Err(sentence) => {
                reader.reject_section(&sentence, "correct or unset the environment variable");
                None
            }
        }
    }

    fn new(endpoints: Endpoints, authority_host: Option<&str>) -> Result<Self, String> {
        let authority_host = authority_host.filter(|host| !host.is_empty()).map(Endpoint::parse);
        let authority_host = authority_host
            .transpose()
            .map_err(|error| format!("{AUTHORITY_HOST} cannot be used: {error}"))?;
        let login = endpoints.get("login").cloned();
        let resource_manager = endpoints.get("resource_manager").cloned();
        let mut named = login.iter().chain(&authority_host).chain(&resource_manager);
        let cloud = named.find_map(Cloud::of).unwrap_or(Cloud::Public);
        let at = |host: &str| Endpoint::parse(&format!("https://{host}"));
        let login = login.or(authority_host).map_or_else(|| at(cloud.login_hosts()[0]), Ok)?;
        let resource_manager =
            resource_manager.map_or_else(|| at(cloud.resource_manager_host()), Ok)?;
        Ok(Self { cloud, login, resource_manager, endpoints })
    }
}

/// `url` where `endpoint` stands for the services called `hosts`; `None` where it leads elsewhere.
/// Azure's answers name its own services, wherever they were asked.
pub(crate) fn moved(url: &str, hosts: &[&str], endpoint: &Endpoint) -> Option<Url> {
    let url = Url::parse(url).ok()?;
    if url.origin() == endpoint.url("/").origin() {
        return Some(url);
    }
    let own = url.scheme() == "https" && url.port().is_none();
    if !own || !hosts.contains(&url.host_str()?) {
        return None;
    }
    Some(match url.query() {
        Some(query) => endpoint.url(&format!("{}?{query}", url.path())),
        None => endpoint.url(url.path()),
    })
}

/// Whether `text` is a UUID of 8-4-4-4-12 hexadecimal digits.
pub(crate) fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn services(text: &str, environment: Option<&str>) -> Services {
        let section = spire_core::config::Section::parse(text).unwrap();
        let names = ["login", "resource_manager"];
        let (endpoints, _) = section.read(|reader| Endpoints::read(reader, &names));
        Services::new(endpoints.unwrap(), environment).unwrap()
    }

    #[test]
    fn a_cloud_follows_from_the_services_that_are_named() {
        for (text, environment, cloud, login, manager) in [
            ("", None, Cloud::Public, "login.microsoftonline.com", "management.azure.com"),
            (
                r#"endpoints { login = "https://login.microsoftonline.us/" }"#,
                None,
                Cloud::Government,
                "login.microsoftonline.us",
                "management.usgovcloudapi.net",
            ),
            (
                "",
                Some("https://login.chinacloudapi.cn"),
                Cloud::China,
                "login.chinacloudapi.cn",
                "management.chinacloudapi.cn",
            ),
            (
                r#"endpoints { login = "https://proxy.example", resource_manager = "https://arm.example" }"#,
                Some("https://login.chinacloudapi.cn"),
                Cloud::China,
                "proxy.example",
                "arm.example",
            ),
            (
                r#"endpoints { login = "https://proxy.example", resource_manager = "https://management.usgovcloudapi.net" }"#,
                None,
                Cloud::Government,
                "proxy.example",
                "management.usgovcloudapi.net",
            ),
            (
                r#"endpoints { login = "https://login.microsoftonline.com" }"#,
                Some("https://login.chinacloudapi.cn"),
                Cloud::Public,
                "login.microsoftonline.com",
                "management.azure.com",
            ),
            (
                r#"endpoints { login = "https://proxy.example" }"#,
                None,
                Cloud::Public,
                "proxy.example",
                "management.azure.com",
            ),
        ] {
            let services = services(text, environment);
            assert_eq!(services.cloud, cloud);
            assert_eq!(services.login.as_str(), format!("https://{login}"));
            assert_eq!(services.resource_manager.as_str(), format!("https://{manager}"));
        }
        assert!(Services::new(Endpoints::default(), Some("login")).is_err());
    }

    #[test]
    fn issuers_name_their_tenant() {
        let tenant = "0f1e2d3c-0000-4000-8000-000000000001";
        let issuer = format!("https://sts.windows.net/{tenant}/");
        assert_eq!(Cloud::Public.tenant_of(&issuer), Some(tenant));
        assert!(Cloud::Government.issuers(tenant).contains(&issuer));
        for other in [
            &issuer[..issuer.len() - 1],
            "https://sts.windows.net//",
            "https://sts.windows.net/a/",
            "https://sts.windows.net.evil/0f1e2d3c-0000-4000-8000-000000000001/",
        ] {
            assert_eq!(Cloud::Public.tenant_of(other), None, "{other}");
        }
    }

    #[test]
    fn answers_lead_to_no_other_host() {
        let endpoint = Endpoint::parse("http://127.0.0.1:9/azure").unwrap();
        let hosts = ["management.azure.com"];
        for (url, moved_to) in [
            ("https://management.azure.com/a?b=c", Some("http://127.0.0.1:9/azure/a?b=c")),
            ("http://127.0.0.1:9/azure/a", Some("http://127.0.0.1:9/azure/a")),
            ("http://management.azure.com/a", None),
            ("https://management.azure.com:444/a", None),
            ("https://management.azure.com.evil/a", None),
            ("https://management.azure.com@evil/a", None),
            ("/a", None),
        ] {
            let found = moved(url, &hosts, &endpoint).map(String::from);
            assert_eq!(found.as_deref(), moved_to, "{url}");
        }
    }
}
