//! Who may call what: one table of methods, and the classes of callers that each is open to.
//! [`Policy`] decides by it which class a caller belongs to.

mod decision;
mod refusals;

use std::collections::HashMap;
use std::sync::LazyLock;

pub use decision::{Denied, Grant, Policy};

/// A class of callers. A caller can be in several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Everyone, even without a certificate.
    Anyone,
    /// A process of this machine, over the admin socket.
    Local,
    /// A SPIFFE ID listed in `admin_ids`, or with an entry marked `admin`.
    Admin,
    /// A server below this one: a SPIFFE ID with an entry marked `downstream`.
    Downstream,
    /// An attested agent with an active SVID.
    Agent,
}

/// A method and who may call it.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its service with the package, such as `spire.api.server.entry.v1.Entry`.
    pub service: &'static str,
    /// Its name.
    pub method: &'static str,
    /// The classes that it is open to.
    pub open_to: &'static [Class],
}

impl Rule {
    /// Whether callers of `class` may call the method.
    pub fn allows(&self, class: Class) -> bool {
        self.open_to.contains(&class)
    }

    /// Whether the method exists on the admin socket only.
    pub fn is_local_only(&self) -> bool {
        self.open_to == LOCAL
    }

    /// The service as logs name it: without the prefix that all of the server's have.
    pub fn short_service(&self) -> &'static str {
        self.service.strip_prefix("spire.api.server.").unwrap_or(self.service)
    }

    /// `/service/method`, as in the request.
    pub fn path(&self) -> String {
        format!("/{}/{}", self.service, self.method)
    }
}

const ANYONE: &[Class] = &[Class::Anyone];
const LOCAL: &[Class] = &[Class::Local];
const OPERATOR: &[Class] = &[Class::Local, Class::Admin];
const OPERATOR_OR_AGENT: &[Class] = &[Class::Local, Class::Admin, Class::Agent];
const AGENT: &[Class] = &[Class::Agent];
const DOWNSTREAM: &[Class] = &[Class::Downstream];

/// All methods of the server.
pub static RULES: &[Rule] = &{
    const fn rule(service: &'static str, method: &'static str, open_to: &'static [Class]) -> Rule {
        Rule { service, method, open_to }
    }
    const AGENTS: &str = "spire.api.server.agent.v1.Agent";
    const BUNDLES: &str = "spire.api.server.bundle.v1.Bundle";
    const ENTRIES: &str = "spire.api.server.entry.v1.Entry";
    const SVIDS: &str = "spire.api.server.svid.v1.SVID";
    const DOMAINS: &str = "spire.api.server.trustdomain.v1.TrustDomain";
    const AUTHORITY: &str = "spire.api.server.localauthority.v1.LocalAuthority";
    const AUTHORITIES: &str = "spire.cloud.server.v1.Authorities";
    const DEBUG: &str = "spire.api.server.debug.v1.Debug";
    const LOGGER: &str = "spire.api.server.logger.v1.Logger";
    const HEALTH: &str = "grpc.health.v1.Health";
    [
        rule(AGENTS, "AttestAgent", ANYONE),
        rule(AGENTS, "RenewAgent", AGENT),
        rule(AGENTS, "PostStatus", AGENT),
        rule(AGENTS, "CountAgents", OPERATOR),
        rule(AGENTS, "ListAgents", OPERATOR),
        rule(AGENTS, "GetAgent", OPERATOR),
        rule(AGENTS, "DeleteAgent", OPERATOR),
        rule(AGENTS, "BanAgent", OPERATOR),
        rule(AGENTS, "CreateJoinToken", OPERATOR),
        rule(BUNDLES, "GetBundle", ANYONE),
        rule(BUNDLES, "GetFederatedBundle", OPERATOR_OR_AGENT),
        rule(BUNDLES, "PublishJWTAuthority", DOWNSTREAM),
        rule(BUNDLES, "PublishWITAuthority", DOWNSTREAM),
        rule(BUNDLES, "AppendBundle", OPERATOR),
        rule(BUNDLES, "CountBundles", OPERATOR),
        rule(BUNDLES, "ListFederatedBundles", OPERATOR),
        rule(BUNDLES, "BatchCreateFederatedBundle", OPERATOR),
        rule(BUNDLES, "BatchUpdateFederatedBundle", OPERATOR),
        rule(BUNDLES, "BatchSetFederatedBundle", OPERATOR),
        rule(BUNDLES, "BatchDeleteFederatedBundle", OPERATOR),
        rule(ENTRIES, "GetAuthorizedEntries", AGENT),
        rule(ENTRIES, "SyncAuthorizedEntries", AGENT),
        rule(ENTRIES, "CountEntries", OPERATOR),
        rule(ENTRIES, "ListEntries", OPERATOR),
        rule(ENTRIES, "GetEntry", OPERATOR),
        rule(ENTRIES, "BatchCreateEntry", OPERATOR),
        rule(ENTRIES, "BatchUpdateEntry", OPERATOR),
        rule(ENTRIES, "BatchDeleteEntry", OPERATOR),
        rule(SVIDS, "BatchNewX509SVID", AGENT),
        rule(SVIDS, "NewJWTSVID", AGENT),
        rule(SVIDS, "BatchNewWITSVID", AGENT),
        rule(SVIDS, "NewDownstreamX509CA", DOWNSTREAM),
        rule(SVIDS, "MintX509SVID", OPERATOR),
        rule(SVIDS, "MintJWTSVID", OPERATOR),
        rule(SVIDS, "MintWITSVID", OPERATOR),
        rule(DOMAINS, "ListFederationRelationships", OPERATOR),
        rule(DOMAINS, "GetFederationRelationship", OPERATOR),
        rule(DOMAINS, "BatchCreateFederationRelationship", OPERATOR),
        rule(DOMAINS, "BatchUpdateFederationRelationship", OPERATOR),
        rule(DOMAINS, "BatchDeleteFederationRelationship", OPERATOR),
        rule(DOMAINS, "RefreshBundle", OPERATOR),
        rule(AUTHORITY, "GetX509AuthorityState", OPERATOR),
        rule(AUTHORITY, "PrepareX509Authority", OPERATOR),
        rule(AUTHORITY, "ActivateX509Authority", OPERATOR),
        rule(AUTHORITY, "TaintX509Authority", OPERATOR),
        rule(AUTHORITY, "RevokeX509Authority", OPERATOR),
        rule(AUTHORITY, "TaintX509UpstreamAuthority", OPERATOR),
        rule(AUTHORITY, "RevokeX509UpstreamAuthority", OPERATOR),
        rule(AUTHORITY, "GetJWTAuthorityState", OPERATOR),
        rule(AUTHORITY, "PrepareJWTAuthority", OPERATOR),
        rule(AUTHORITY, "ActivateJWTAuthority", OPERATOR),
        rule(AUTHORITY, "TaintJWTAuthority", OPERATOR),
        rule(AUTHORITY, "RevokeJWTAuthority", OPERATOR),
        rule(AUTHORITY, "GetWITAuthorityState", OPERATOR),
        rule(AUTHORITY, "PrepareWITAuthority", OPERATOR),
        rule(AUTHORITY, "ActivateWITAuthority", OPERATOR),
        rule(AUTHORITY, "TaintWITAuthority", OPERATOR),
        rule(AUTHORITY, "RevokeWITAuthority", OPERATOR),
        rule(AUTHORITIES, "GetAuthorities", LOCAL),
        rule(DEBUG, "GetInfo", LOCAL),
        rule(LOGGER, "GetLogger", LOCAL),
        rule(LOGGER, "SetLogLevel", LOCAL),
        rule(LOGGER, "ResetLogLevel", LOCAL),
        rule(HEALTH, "Check", LOCAL),
        rule(HEALTH, "List", LOCAL),
        rule(HEALTH, "Watch", LOCAL),
    ]
};

/// The rule of a method by its path; `None` where no service of ours has such a method.
pub fn rule(path: &str) -> Option<&'static Rule> {
    static BY_PATH: LazyLock<HashMap<String, &'static Rule>> =
        LazyLock::new(|| RULES.iter().map(|rule| (rule.path(), rule)).collect());
    BY_PATH.get(path).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use spire_core::wire::DESCRIPTORS;

    use super::*;

    #[test]
    fn every_method_of_the_server_has_one_rule() {
        let files: prost_types::FileDescriptorSet = prost::Message::decode(DESCRIPTORS).unwrap();
        let mut described = BTreeSet::new();
        for file in &files.file {
            let package = file.package();
            let ours = ["spire.api.server.", "spire.cloud.server.", "grpc.health.v1"];
            if ours.iter().any(|prefix| package.starts_with(prefix)) {
                for service in &file.service {
                    described.extend(
                        service.method.iter().map(|method| {
                            format!("/{package}.{}/{}", service.name(), method.name())
                        }),
                    );
                }
            }
        }
        let ruled: BTreeSet<_> = RULES.iter().map(Rule::path).collect();
        assert_eq!(ruled, described);
        assert_eq!(ruled.len(), RULES.len());
    }

    #[test]
    fn a_rule_is_found_by_its_path_alone() {
        let found = rule("/spire.api.server.debug.v1.Debug/GetInfo").unwrap();
        assert_eq!((found.short_service(), found.method), ("debug.v1.Debug", "GetInfo"));
        assert!(found.is_local_only());
        assert_eq!(rule("/spire.api.server.debug.v1.Debug/getinfo"), None);
        assert_eq!(rule(""), None);
    }
}
