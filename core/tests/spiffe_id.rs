//! What is a SPIFFE ID, row by row of the SPIFFE standard, and properties of the texts that come
//! from outside.
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

use std::collections::BTreeSet;

use proptest::prelude::*;
use spire_core::id::{IdError, MAX_ID_BYTES, MAX_TRUST_DOMAIN_BYTES, SpiffeId, TrustDomain};
use spire_core::selector::{RequiredSelectors, Selector};

fn all_refused(texts: &[&str], error: IdError) {
    for text in texts {
        assert_eq!(SpiffeId::parse(text), Err(error.clone()), "{text:?}");
    }
}

/// All are taken, and printed as they were written.
fn all_taken(texts: &[&str]) {
    for text in texts {
        assert_eq!(SpiffeId::parse(text).unwrap().as_str(), *text);
    }
}

#[test]
fn id_01_the_scheme_is_spiffe() {
    all_refused(&["https://td/w", "td/w", "spiffe:/td/w", "spiffe", "//td/w"], IdError::Scheme);
    all_refused(&[""], IdError::Empty);
}

#[test]
fn id_02_the_trust_domain_has_a_name() {
    all_refused(&["spiffe://", "spiffe:///w"], IdError::NoTrustDomain);
}

#[test]
fn id_03_04_there_is_no_query_and_no_fragment() {
    let in_path = ["spiffe://td/w?a=b", "spiffe://td/w?", "spiffe://td/w#x", "spiffe://td/w#"];
    all_refused(&in_path, IdError::PathCharacter);
    all_refused(&["spiffe://td?", "spiffe://td#"], IdError::TrustDomainCharacter);
}

#[test]
fn id_05_06_the_authority_has_no_user_and_no_port() {
    let texts = [
        "spiffe://u@td/w",
        "spiffe://u:p@td/w",
        "spiffe://@td/w",
        "spiffe://td:8080/w",
        "spiffe://td:/w",
    ];
    all_refused(&texts, IdError::TrustDomainCharacter);
}

#[test]
fn id_07_20_case_counts_and_trust_domains_have_none() {
    all_refused(&["spiffe://TD/w", "spiffe://tD/w"], IdError::TrustDomainCharacter);
    all_refused(&["SPIFFE://td/w", "Spiffe://td/w"], IdError::Scheme);
    all_taken(&["spiffe://td/W"]);
    assert_ne!(SpiffeId::parse("spiffe://td/Foo"), SpiffeId::parse("spiffe://td/foo"));
}

#[test]
fn id_08_the_trust_domain_keeps_to_its_characters() {
    let allowed = b"abcdefghijklmnopqrstuvwxyz0123456789.-_";
    for byte in 0..=u8::MAX {
        // A slash ends the name.
        if byte == b'/' {
            continue;
        }
        let text = [b"spiffe://t", &[byte][..], b"d/w"].concat();
        // Bytes that are no UTF-8 arrive as what replaces them.
        let text = String::from_utf8_lossy(&text);
        assert_eq!(SpiffeId::parse(&text).is_ok(), allowed.contains(&byte), "{byte:#x}");
    }
    all_taken(&["spiffe://a.b-c_9/w"]);
}

#[test]
fn id_09_12_nothing_is_percent_encoded() {
    all_refused(&["spiffe://t%64/w"], IdError::TrustDomainCharacter);
    let texts = ["spiffe://td/a%20b", "spiffe://td/a%2Fb", "spiffe://td/%41"];
    all_refused(&texts, IdError::PathCharacter);
}

#[test]
fn id_10_11_a_trust_domain_is_neither_an_address_nor_a_host() {
    let label = format!("spiffe://{}/w", "a".repeat(200));
    all_taken(&["spiffe://10.0.0.1/w", "spiffe://a..b/w", "spiffe://-a.", "spiffe://_", &label]);
    all_taken(&["spiffe://1.2.3.4.5"]);
    assert_ne!(TrustDomain::parse("a.b"), TrustDomain::parse("a.b."));
    all_refused(&["spiffe://[::1]/w"], IdError::TrustDomainCharacter);
}

#[test]
fn id_13_14_15_segments_are_neither_empty_nor_dots() {
    all_refused(&["spiffe://td//w", "spiffe://td/a//b"], IdError::EmptySegment);
    let dots = ["spiffe://td/.", "spiffe://td/a/..", "spiffe://td/../a", "spiffe://td/a/./b"];
    all_refused(&dots, IdError::DotSegment);
    all_taken(&["spiffe://td/...", "spiffe://td/.a", "spiffe://td/a.", "spiffe://td/..a"]);
    all_refused(&["spiffe://td/", "spiffe://td/a/"], IdError::TrailingSlash);
    all_taken(&["spiffe://td"]);
}

#[test]
fn id_16_a_path_keeps_to_its_characters() {
    let allowed = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_/";
    for byte in 0..=u8::MAX {
        let text = [b"spiffe://td/a", &[byte][..], b"b"].concat();
        let text = String::from_utf8_lossy(&text);
        assert_eq!(SpiffeId::parse(&text).is_ok(), allowed.contains(&byte), "{byte:#x}");
    }
    let texts = ["a b", "a~b", "a:b", "a@b", "a!", "\u{fc}"];
    for path in texts {
        all_refused(&[&format!("spiffe://td/{path}")], IdError::PathCharacter);
    }
}

#[test]
fn id_17_18_19_ids_are_at_most_2048_bytes_and_trust_domains_255() {
    let id = |bytes: usize| format!("spiffe://td/{}", "a".repeat(bytes - "spiffe://td/".len()));
    all_taken(&[&id(MAX_ID_BYTES)]);
    all_refused(&[&id(MAX_ID_BYTES + 1)], IdError::TooLong);
    assert_eq!(MAX_ID_BYTES, 2048);
    let name = "a".repeat(255);
    assert_eq!(TrustDomain::parse(&name).unwrap().as_str(), name);
    assert_eq!(TrustDomain::parse(&format!("{name}a")), Err(IdError::TrustDomainTooLong));
    assert_eq!(MAX_TRUST_DOMAIN_BYTES, 255);
}

/// Texts that are nearly IDs, and some that are.
fn nearly_ids() -> impl Strategy<Value = String> {
    prop_oneof![
        "spiffe://[a-z0-9._-]{0,12}(/[a-zA-Z0-9._-]{0,8}){0,4}",
        "[sS]piffe:/{1,3}[a-zA-Z0-9._@:?#%-]{0,12}(/[a-zA-Z0-9._@:?#%\u{e4} -]{0,8}){0,4}",
        ".{0,60}",
    ]
}

proptest! {
    #[test]
    fn an_id_is_printed_as_it_was_read_and_taken_apart_without_loss(text in nearly_ids()) {
        let Ok(id) = SpiffeId::parse(&text) else { return Ok(()) };
        prop_assert_eq!(id.as_str(), &text);
        prop_assert_eq!(format!("spiffe://{}{}", id.trust_domain_name(), id.path()), text.clone());
        prop_assert_eq!(id.trust_domain().member(id.path()), Ok(id.clone()));
        prop_assert_eq!(TrustDomain::parse(&text), Ok(id.trust_domain()));
        prop_assert!(id.is_member_of(&id.trust_domain()));
    }

    /// The rules once more, in the words of the standard.
    #[test]
    fn an_id_is_taken_exactly_where_the_standard_allows_it(text in nearly_ids()) {
        let is_segment = |segment: &str| {
            !matches!(segment, "" | "." | "..")
                && segment.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        let is_id = text.strip_prefix("spiffe://").is_some_and(|rest| {
            let mut parts = rest.split('/');
            let name = parts.next().unwrap();
            let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
            !name.is_empty() && name.chars().all(is_name) && parts.all(is_segment)
        });
        prop_assert_eq!(SpiffeId::parse(&text).is_ok(), is_id);
    }

    #[test]
    fn a_member_never_leaves_its_trust_domain(path in "[/.a-z@?#:-]{0,20}") {
        let domain = TrustDomain::parse("td").unwrap();
        if let Ok(id) = domain.member(&path) {
            prop_assert_eq!(id.trust_domain_name(), "td");
            prop_assert_eq!(id.path(), path);
        }
    }

    #[test]
    fn a_selector_is_printed_as_it_was_read(text in "[a-z:_]{0,6}:?.{0,12}") {
        let Ok(selector) = text.parse::<Selector>() else { return Ok(()) };
        prop_assert_eq!(selector.to_string(), text.clone());
        prop_assert!(!selector.kind().contains(':') && !selector.kind().is_empty());
        prop_assert!(!selector.value().is_empty());
        prop_assert_eq!(Selector::new(selector.kind(), selector.value()), Ok(selector));
    }

    #[test]
    fn selectors_are_met_by_their_supersets_alone(
        required in proptest::collection::btree_set(0..12_u8, 1..5),
        found in proptest::collection::btree_set(0..12_u8, 0..9),
    ) {
        let named = |numbers: &BTreeSet<u8>| -> BTreeSet<Selector> {
            numbers.iter().map(|one| format!("t:{one}").parse().unwrap()).collect()
        };
        let asked = RequiredSelectors::new(named(&required)).unwrap();
        prop_assert_eq!(asked.are_met_by(&named(&found)), required.iter().all(|it| found.contains(it)));
    }
}
