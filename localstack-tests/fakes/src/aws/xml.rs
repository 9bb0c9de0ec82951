//! Elements of XML.

/// An element with what is inside it, which is XML.
pub(super) fn element(name: &str, inside: impl AsRef<str>) -> String {
    format!("<{name}>{}</{name}>", inside.as_ref())
}

/// An element with a text.
pub(super) fn text(name: &str, text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    element(name, text)
}

/// An element with a text, where there is one.
pub(super) fn optional(name: &str, value: Option<&str>) -> String {
    value.map(|value| text(name, value)).unwrap_or_default()
}
