//! Configuration files in HCL 1 and JSON: an error names a place in the file.
#![no_main]

mod bound;

use libfuzzer_sys::fuzz_target;
use spire_core::config::{Section, read_log, read_plugins};

fuzz_target!(|text: &str| {
    bound::in_time(|| match Section::parse(text) {
        Ok(section) => {
            let _ = section.read(|reader| {
                let plugins = read_plugins(reader);
                let log = read_log(reader);
                Some((plugins, log))
            });
        }
        Err(error) => {
            let lines = text.split('\n').count();
            assert!((1..=lines).contains(&(error.at.line as usize)), "{error}");
            assert!(error.at.column >= 1, "{error}");
        }
    });
});
