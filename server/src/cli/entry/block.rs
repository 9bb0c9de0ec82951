//! An entry as people read it.

use std::fmt::{self, Write};

use spire_core::command::utc_time;
use spire_core::wire::types::Entry;

use crate::cli::values::id_text;

/// The lines of an entry, with the empty one that ends it.
pub(super) fn block(entry: &Entry) -> String {
    let mut lines = Lines(String::new());
    let id = if entry.id.is_empty() { "(none)" } else { &entry.id };
    lines.add("Entry ID", id);
    lines.add("SPIFFE ID", id_text(entry.spiffe_id.as_ref()));
    lines.add("Parent ID", id_text(entry.parent_id.as_ref()));
    lines.add("Revision", entry.revision_number);
    lines.add_flag("Downstream", entry.downstream);
    lines.add("X509-SVID TTL", ttl(entry.x509_svid_ttl));
    lines.add("JWT-SVID TTL", ttl(entry.jwt_svid_ttl));
    if entry.expires_at != 0 {
        lines.add("Expiration time", utc_time(entry.expires_at));
    }
    for selector in &entry.selectors {
        lines.add("Selector", format_args!("{}:{}", selector.r#type, selector.value));
    }
    for trust_domain in &entry.federates_with {
        lines.add("FederatesWith", trust_domain);
    }
    for name in &entry.dns_names {
        lines.add("DNS name", name);
    }
    lines.add_flag("Admin", entry.admin);
    lines.add_flag("StoreSvid", entry.store_svid);
    if !entry.hint.is_empty() {
        lines.add("Hint", &entry.hint);
    }
    if let Some(attributes) = &entry.additional_attributes {
        lines.add_flag("DisableX509SvidPrefetch", attributes.disable_x509_svid_prefetch);
        lines.add_flag("JwtSvidIncludeJti", attributes.jwt_svid_include_jti);
    }
    lines.0.push('\n');
    lines.0
}

struct Lines(String);

impl Lines {
    fn add(&mut self, label: &str, value: impl fmt::Display) {
        let _ = writeln!(self.0, "{label:24}: {value}");
    }

    fn add_flag(&mut self, label: &str, on: bool) {
        if on {
            self.add(label, true);
        }
    }
}

fn ttl(seconds: i32) -> String {
    if seconds == 0 { "default".to_owned() } else { seconds.to_string() }
}
