//! Answers in XML.

use super::{respond, with};
use crate::http::Response;

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

/// An answer.
pub(super) fn answer(name: &str, namespace: &str, inside: &str) -> Response {
    let body = format!("<{name} xmlns=\"{namespace}\">{inside}</{name}>");
    with(respond(200, body), "content-type", "text/xml;charset=UTF-8")
}

/// A refusal in the dialect of EC2.
pub(super) fn error(status: u16, code: &str, message: &str) -> Response {
    let error = element("Error", text("Code", code) + &text("Message", message));
    let body = element("Response", element("Errors", error) + &text("RequestID", "fake"));
    with(respond(status, body), "content-type", "text/xml;charset=UTF-8")
}

/// A refusal in the dialect of all but EC2.
pub(super) fn query_error(status: u16, code: &str, message: &str) -> Response {
    let inside = text("Type", "Sender") + &text("Code", code) + &text("Message", message);
    let body = element("ErrorResponse", element("Error", inside) + &text("RequestId", "fake"));
    with(respond(status, body), "content-type", "text/xml")
}
