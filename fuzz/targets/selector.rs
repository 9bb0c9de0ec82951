//! Selectors: what is read is printed as it was, and type and value make it again.
#![no_main]

mod bound;

use libfuzzer_sys::fuzz_target;
use spire_core::selector::Selector;

fuzz_target!(|text: &str| {
    bound::in_time(|| {
        let Ok(selector) = text.parse::<Selector>() else { return };
        assert_eq!(selector.as_str(), text);
        assert!(!selector.kind().is_empty() && !selector.kind().contains(':'));
        assert!(!selector.value().is_empty());
        assert_eq!(Selector::new(selector.kind(), selector.value()), Ok(selector));
    });
});
