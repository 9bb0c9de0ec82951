//! SPIFFE IDs and trust domains, valid from birth.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest SPIFFE ID in bytes that is read or made.
///
/// # Source
/// SPIFFE-ID, 2.3.
pub const MAX_ID_BYTES: usize = 2048;

/// Longest name of a trust domain in bytes.
///
/// # Source
/// SPIFFE-ID, 2.3.
pub const MAX_TRUST_DOMAIN_BYTES: usize = 255;

const SCHEME: &str = "spiffe://";

/// The path of the IDs of servers.
pub const SERVER_PATH: &str = "/spire/server";

/// Why a text is no SPIFFE ID, or not one that is allowed where it was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// There is no text at all.
    #[error("cannot be empty")]
    Empty,
    /// The text does not begin with `spiffe://`.
    #[error("scheme is missing or invalid")]
    Scheme,
    /// Nothing stands between the scheme and the path.
    #[error("trust domain is missing")]
    NoTrustDomain,
    /// A byte of the trust domain is outside its character set.
    #[error(
        "trust domain characters are limited to lowercase letters, numbers, dots, dashes, and \
         underscores"
    )]
    TrustDomainCharacter,
    /// The trust domain is longer than [`MAX_TRUST_DOMAIN_BYTES`].
    #[error("trust domain is longer than 255 bytes")]
    TrustDomainTooLong,
    /// The path does not begin with a slash.
    #[error("path must have a leading slash")]
    NoLeadingSlash,
    /// Two slashes stand side by side.
    #[error("path cannot contain empty segments")]
    EmptySegment,
    /// A segment is `.` or `..`.
    #[error("path cannot contain dot segments")]
    DotSegment,
    /// The path ends in a slash.
    #[error("path cannot have a trailing slash")]
    TrailingSlash,
    /// A byte of the path is outside its character set.
    #[error(
        "path segment characters are limited to letters, numbers, dots, dashes, and underscores"
    )]
    PathCharacter,
    /// The ID is longer than [`MAX_ID_BYTES`].
    #[error("SPIFFE ID is longer than 2048 bytes")]
    TooLong,
}

/// Why a valid ID may not stand where it was found. The messages are those of SPIRE.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoleError {
    /// It belongs to another trust domain.
    #[error("\"{0}\" is not a member of trust domain \"{1}\"")]
    Foreign(SpiffeId, TrustDomain),
    /// It names the trust domain itself instead of a workload in it.
    #[error("\"{0}\" is not a workload in trust domain \"{1}\"; path is empty")]
    NoWorkload(SpiffeId, TrustDomain),
    /// It belongs to servers and agents.
    #[error("\"{0}\" is not a workload in trust domain \"{1}\"; path is in the reserved namespace")]
    Reserved(SpiffeId, TrustDomain),
    /// It names the trust domain itself instead of an agent in it.
    #[error("\"{0}\" is not an agent in trust domain \"{1}\"; path is empty")]
    NoAgent(SpiffeId, TrustDomain),
    /// It is not below `/spire/agent`.
    #[error("\"{0}\" is not an agent in trust domain \"{1}\"; path is not in the agent namespace")]
    NotAnAgent(SpiffeId, TrustDomain),
}

/// The name of a trust domain, such as `example.org`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Reads a bare name, or the trust domain of a SPIFFE ID whose path is ignored.
    ///
    /// # Errors
    /// [`IdError`] names the first rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        if text.contains(":/") {
            return SpiffeId::parse(text).map(|id| id.trust_domain());
        }
        check_trust_domain(text)?;
        Ok(Self(text.into()))
    }

    /// The name without a scheme.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The ID of the trust domain itself: `spiffe://<name>`.
    pub fn id(&self) -> SpiffeId {
        SpiffeId {
            text: format!("{SCHEME}{}", self.0).into(),
            path_at: SCHEME.len() + self.0.len(),
        }
    }

    /// The ID of its servers.
    pub fn server_id(&self) -> SpiffeId {
        SpiffeId {
            text: format!("{SCHEME}{}{SERVER_PATH}", self.0).into(),
            path_at: SCHEME.len() + self.0.len(),
        }
    }

    /// An ID in this trust domain.
    ///
    /// # Errors
    /// [`IdError`] where `path` is neither empty nor a valid path with its leading slash.
    pub fn member(&self, path: &str) -> Result<SpiffeId, IdError> {
        if !path.is_empty() && !path.starts_with('/') {
            return Err(IdError::NoLeadingSlash);
        }
        SpiffeId::parse(&format!("{SCHEME}{}{path}", self.0))
    }
}

/// `spiffe://<trust domain><path>`, checked. Cheap to clone.
///
/// # Source
/// SPIFFE-ID, 2.
#[derive(Clone)]
pub struct SpiffeId {
    text: Arc<str>,
    path_at: usize,
}

impl SpiffeId {
    /// Reads an ID, with or without a path.
    ///
    /// # Errors
    /// [`IdError`] names the first rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let path_at = check(text)?;
        Ok(Self { text: text.into(), path_at })
    }

    /// The whole ID.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The name of its trust domain.
    pub fn trust_domain_name(&self) -> &str {
        &self.text[SCHEME.len()..self.path_at]
    }

    /// Its trust domain.
    pub fn trust_domain(&self) -> TrustDomain {
        TrustDomain(self.trust_domain_name().into())
    }

    /// The path with its leading slash, or nothing.
    pub fn path(&self) -> &str {
        &self.text[self.path_at..]
    }

    /// Whether it lies in `trust_domain`.
    pub fn is_member_of(&self, trust_domain: &TrustDomain) -> bool {
        self.trust_domain_name() == trust_domain.as_str()
    }

    /// Whether its path is `/spire` or below it, which no workload may have.
    pub fn is_reserved(&self) -> bool {
        let path = self.path();
        path == "/spire" || path.starts_with("/spire/")
    }

    /// Whether it lies below `/spire/agent`.
    pub fn is_agent(&self) -> bool {
        self.path().starts_with("/spire/agent/")
    }

    /// Returns it where it lies in `trust_domain`.
    ///
    /// # Errors
    /// [`RoleError::Foreign`]
    pub fn member_of(self, trust_domain: &TrustDomain) -> Result<Self, RoleError> {
        if self.is_member_of(trust_domain) {
            Ok(self)
        } else {
            Err(RoleError::Foreign(self, trust_domain.clone()))
        }
    }

    /// Returns it where workloads of `trust_domain` may have it.
    ///
    /// # Errors
    /// [`RoleError`] says what it is instead.
    pub fn workload_of(self, trust_domain: &TrustDomain) -> Result<Self, RoleError> {
        let id = self.member_of(trust_domain)?;
        if id.path().is_empty() {
            return Err(RoleError::NoWorkload(id, trust_domain.clone()));
        }
        if id.is_reserved() {
            return Err(RoleError::Reserved(id, trust_domain.clone()));
        }
        Ok(id)
    }

    /// Returns it where agents of `trust_domain` may have it.
    ///
    /// # Errors
    /// [`RoleError`] says what it is instead.
    pub fn agent_of(self, trust_domain: &TrustDomain) -> Result<Self, RoleError> {
        let id = self.member_of(trust_domain)?;
        if id.path().is_empty() {
            return Err(RoleError::NoAgent(id, trust_domain.clone()));
        }
        if !id.is_agent() {
            return Err(RoleError::NotAnAgent(id, trust_domain.clone()));
        }
        Ok(id)
    }
}

fn check(text: &str) -> Result<usize, IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > MAX_ID_BYTES {
        return Err(IdError::TooLong);
    }
    let rest = text.strip_prefix(SCHEME).ok_or(IdError::Scheme)?;
    let name_bytes = rest.find('/').unwrap_or(rest.len());
    check_trust_domain(&rest[..name_bytes])?;
    check_path(&rest[name_bytes..])?;
    Ok(SCHEME.len() + name_bytes)
}

fn check_trust_domain(name: &str) -> Result<(), IdError> {
    if name.is_empty() {
        return Err(IdError::NoTrustDomain);
    }
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    if !name.bytes().all(allowed) {
        return Err(IdError::TrustDomainCharacter);
    }
    if name.len() > MAX_TRUST_DOMAIN_BYTES {
        return Err(IdError::TrustDomainTooLong);
    }
    Ok(())
}

fn check_path(path: &str) -> Result<(), IdError> {
    let Some(segments) = path.strip_prefix('/') else { return Ok(()) };
    let mut segments = segments.split('/').peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "" if segments.peek().is_none() => return Err(IdError::TrailingSlash),
            "" => return Err(IdError::EmptySegment),
            "." | ".." => return Err(IdError::DotSegment),
            _ => {}
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if !segment.bytes().all(allowed) {
            return Err(IdError::PathCharacter);
        }
    }
    Ok(())
}

macro_rules! text_like {
    ($type:ty, $text:expr) => {
        impl fmt::Display for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str($text(self))
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str($text(self))
            }
        }
        impl FromStr for $type {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str($text(self))
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}
text_like!(TrustDomain, TrustDomain::as_str);
text_like!(SpiffeId, SpiffeId::as_str);

impl PartialEq for SpiffeId {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}
impl Eq for SpiffeId {}
impl PartialOrd for SpiffeId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for SpiffeId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}
impl Hash for SpiffeId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}
impl std::borrow::Borrow<str> for SpiffeId {
    fn borrow(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_taken_apart_at_its_path() {
        let id = SpiffeId::parse("spiffe://example.org/a/b").unwrap();
        assert_eq!((id.trust_domain_name(), id.path()), ("example.org", "/a/b"));
        assert_eq!(TrustDomain::parse("spiffe://example.org/a").unwrap().as_str(), "example.org");
    }

    #[test]
    fn each_broken_rule_is_named() {
        let cases = [
            ("", IdError::Empty),
            ("https://td/w", IdError::Scheme),
            ("SPIFFE://td/w", IdError::Scheme),
            ("spiffe:///w", IdError::NoTrustDomain),
            ("spiffe://TD/w", IdError::TrustDomainCharacter),
            ("spiffe://td:80/w", IdError::TrustDomainCharacter),
            ("spiffe://td?a", IdError::TrustDomainCharacter),
            ("spiffe://td/a//b", IdError::EmptySegment),
            ("spiffe://td/", IdError::TrailingSlash),
            ("spiffe://td/../a", IdError::DotSegment),
            ("spiffe://td/a%20b", IdError::PathCharacter),
            ("spiffe://td/w#", IdError::PathCharacter),
        ];
        for (text, error) in cases {
            assert_eq!(SpiffeId::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn an_id_is_taken_only_where_it_may_stand() {
        let domain = TrustDomain::parse("td").unwrap();
        let id = |path: &str| SpiffeId::parse(&format!("spiffe://td{path}")).unwrap();
        assert!(id("/w").workload_of(&domain).is_ok());
        assert!(id("/spire/agent/x509pop/a").agent_of(&domain).is_ok());
        let foreign = SpiffeId::parse("spiffe://other/w").unwrap();
        for (error, sentence) in [
            (
                foreign.workload_of(&domain),
                r#""spiffe://other/w" is not a member of trust domain "td""#,
            ),
            (
                id("").workload_of(&domain),
                r#""spiffe://td" is not a workload in trust domain "td"; path is empty"#,
            ),
            (
                id("/spire/server").workload_of(&domain),
                "\"spiffe://td/spire/server\" is not a workload in trust domain \"td\"; path is in \
                 the reserved namespace",
            ),
            (
                id("/w").agent_of(&domain),
                "\"spiffe://td/w\" is not an agent in trust domain \"td\"; path is not in the agent \
                 namespace",
            ),
        ] {
            assert_eq!(error.unwrap_err().to_string(), sentence);
        }
    }
}
