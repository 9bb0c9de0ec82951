//! What requests that list or count have in common: pages, and filters on sets.

use std::collections::BTreeSet;

use spire_core::id::TrustDomain;
use spire_core::selector::Selector;
use spire_core::wire::convert;
use spire_core::wire::types::federates_with_match::MatchBehavior as DomainsBehavior;
use spire_core::wire::types::selector_match::MatchBehavior;
use spire_core::wire::types::{FederatesWithMatch, SelectorMatch};
use tonic::Status;

use super::status::invalid;
use crate::store::{Page, PageToken, SetMatch, SetRule};

/// Longest page; a client that asks for more gets this many and the token of the next.
pub(super) const MAX_PAGE_SIZE: u32 = 10_000;

/// Longest list without pages, which a client gets that names no page size.
const MAX_LIST: u32 = 100_000;

/// Reads which page is wanted.
pub(super) fn page(size: i32, token: &str) -> Result<Page, Status> {
    let limit = u32::try_from(size).map_err(|_| {
        Status::invalid_argument(format!("page_size must not be negative, but is {size}"))
    })?;
    let after = (!token.is_empty()).then(|| token.parse()).transpose();
    let after = after.map_err(|_| {
        Status::invalid_argument(format!(
            "could not parse page token {token:?}; pass the next_page_token of the page before"
        ))
    })?;
    Ok(Page { after, limit: Some(if limit > 0 { limit.min(MAX_PAGE_SIZE) } else { MAX_LIST }) })
}

/// Writes where the page after one of `size` starts.
///
/// # Errors
/// `RESOURCE_EXHAUSTED` where all were asked for and are too many.
pub(super) fn next_page_token(size: i32, next: Option<PageToken>) -> Result<String, Status> {
    match next {
        Some(_) if size == 0 => Err(Status::resource_exhausted(format!(
            "there are more than {MAX_LIST}; ask for them in pages, by page_size"
        ))),
        next => Ok(next.map(|token| token.to_string()).unwrap_or_default()),
    }
}

/// Writes a count.
pub(super) fn count(count: u64) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// Reads a filter on selectors; `what` names it where it is wrong.
pub(super) fn selector_match(
    what: &str,
    wire: &SelectorMatch,
) -> Result<SetMatch<Selector>, Status> {
    let members = convert::selectors(&wire.selectors).map_err(|error| invalid(what, error))?;
    if members.is_empty() {
        return Err(invalid(what, "empty selector set"));
    }
    let behavior = MatchBehavior::try_from(wire.r#match);
    let rule = match behavior.map_err(|error| invalid(what, error))? {
        MatchBehavior::MatchExact => SetRule::Exact,
        MatchBehavior::MatchSubset => SetRule::Subset,
        MatchBehavior::MatchSuperset => SetRule::Superset,
        MatchBehavior::MatchAny => SetRule::Any,
    };
    Ok(SetMatch { members: BTreeSet::from_iter(members), rule })
}

/// Reads a filter on federated trust domains; `what` names it where it is wrong.
pub(super) fn federates_with_match(
    what: &str,
    wire: &FederatesWithMatch,
) -> Result<SetMatch<TrustDomain>, Status> {
    let domains = wire.trust_domains.iter().map(|name| TrustDomain::parse(name));
    let members: BTreeSet<_> =
        domains.collect::<Result<_, _>>().map_err(|error| invalid(what, error))?;
    if members.is_empty() {
        return Err(invalid(what, "empty trust domain set"));
    }
    let behavior = DomainsBehavior::try_from(wire.r#match);
    let rule = match behavior.map_err(|error| invalid(what, error))? {
        DomainsBehavior::MatchExact => SetRule::Exact,
        DomainsBehavior::MatchSubset => SetRule::Subset,
        DomainsBehavior::MatchSuperset => SetRule::Superset,
        DomainsBehavior::MatchAny => SetRule::Any,
    };
    Ok(SetMatch { members, rule })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_bounded_and_wrong_ones_named() {
        assert_eq!(page(0, "").unwrap(), Page { after: None, limit: Some(MAX_LIST) });
        assert_eq!(page(5, "").unwrap().limit, Some(5));
        assert_eq!(page(i32::MAX, "").unwrap().limit, Some(MAX_PAGE_SIZE));
        assert_eq!(
            page(-1, "").unwrap_err().message(),
            "page_size must not be negative, but is -1"
        );
        for token in ["x", "-1", "99999999999999999999", "1 "] {
            assert_eq!(page(0, token).unwrap_err().code(), tonic::Code::InvalidArgument, "{token}");
        }
    }

    #[test]
    fn a_list_without_pages_that_is_too_long_is_refused() {
        let next = || Some("7".parse().unwrap());
        assert_eq!(next_page_token(5, next()).unwrap(), "7");
        assert_eq!(next_page_token(0, None).unwrap(), "");
        let refused = next_page_token(0, next()).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert!(refused.message().contains("more than 100000"), "{refused}");
    }

    #[test]
    fn a_filter_on_sets_names_what_is_wrong_with_it() {
        let empty = selector_match("malformed selectors filter", &SelectorMatch::default());
        assert_eq!(empty.unwrap_err().message(), "malformed selectors filter: empty selector set");
        let wire = FederatesWithMatch { trust_domains: vec!["a".into()], r#match: 9 };
        let unknown = federates_with_match("malformed federates with filter", &wire);
        assert_eq!(unknown.unwrap_err().code(), tonic::Code::InvalidArgument);
    }
}
