//! A call to a service: who makes it, what it asks for, and how its protocol answers.

use serde_json::{Value, json};
use url::form_urlencoded;

use super::xml::{element, text};
use super::{HOME_ACCOUNT, respond, with};
use crate::http::{Request, Response};

/// A call.
pub(super) struct Call<'r> {
    /// Such as `DescribeInstances`.
    pub(super) action: String,
    /// The ID by which the answer calls it.
    pub(super) id: String,
    /// How its service talks.
    pub(super) protocol: Protocol,
    request: &'r Request,
    fields: Vec<(String, String)>,
}

/// How a service talks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// A form, answered in XML: EC2's own kind.
    Ec2,
    /// A form, answered in XML.
    Query,
    /// JSON 1.1, the action in a header.
    Json,
    /// JSON, the action in the path.
    Rest,
}

/// Why a call is not answered.
#[derive(Debug)]
pub(super) struct Refusal {
    status: u16,
    code: &'static str,
    message: String,
}

/// Who calls: what a request is signed for.
pub(super) struct Caller {
    /// The account of the key.
    pub(super) account: String,
    pub(super) region: String,
    pub(super) service: String,
    /// Whether the key is one that a role gave out.
    pub(super) is_temporary: bool,
}

impl<'r> Call<'r> {
    pub(super) fn new(request: &'r Request, id: String) -> Self {
        let fields = fields(&request.body);
        let is_ec2 = fields.iter().any(|(key, value)| key == "Version" && value == "2016-11-15");
        let protocol = if !request.header("x-amz-target").is_empty() {
            Protocol::Json
        } else if request.path.starts_with("/clusters/") {
            Protocol::Rest
        } else if is_ec2 {
            Protocol::Ec2
        } else {
            Protocol::Query
        };
        Self { action: action_of(request), id, protocol, request, fields }
    }

    /// A field of the form; empty where it is absent.
    pub(super) fn field(&self, name: &str) -> &str {
        let found = self.fields.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    /// The values of `Name.1`, `Name.2` and so on.
    pub(super) fn numbered(&self, name: &str) -> Vec<&str> {
        let is_numbered = |key: &str| {
            let number = key.strip_prefix(name).and_then(|rest| rest.strip_prefix('.'));
            number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
        };
        let fields = self.fields.iter().filter(|(key, _)| is_numbered(key));
        fields.map(|(_, value)| value.as_str()).collect()
    }

    /// A parameter of the query; `None` where it is absent.
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        let mut parameters = fields(self.request.query.as_bytes()).into_iter();
        parameters.find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The body, where it is JSON.
    pub(super) fn body(&self) -> Value {
        serde_json::from_slice(&self.request.body).unwrap_or_default()
    }

    /// A segment of the path, decoded.
    pub(super) fn segment(&self, index: usize) -> String {
        let segment = self.request.path.trim_matches('/').split('/').nth(index);
        // The form's rules differ from those of a path in the plus sign alone.
        let segment = segment.unwrap_or_default().replace('+', "%2B");
        fields(segment.as_bytes()).into_iter().next().map(|(name, _)| name).unwrap_or_default()
    }

    /// An answer in XML.
    pub(super) fn xml(&self, namespace: &str, inside: &str) -> Response {
        let action = &self.action;
        let inside = match self.protocol {
            Protocol::Ec2 => text("requestId", &self.id) + inside,
            _ => {
                let metadata = element("ResponseMetadata", text("RequestId", &self.id));
                element(&format!("{action}Result"), inside) + &metadata
            }
        };
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <{action}Response xmlns=\"{namespace}\">{inside}</{action}Response>"
        );
        with(respond(200, body), "content-type", "text/xml;charset=UTF-8")
    }

    /// An answer in JSON.
    pub(super) fn json(&self, value: &Value) -> Response {
        self.json_with(200, value)
    }

    fn json_with(&self, status: u16, value: &Value) -> Response {
        let kind = match self.protocol {
            Protocol::Json => "application/x-amz-json-1.1",
            _ => "application/json",
        };
        with(respond(status, value.to_string()), "content-type", kind)
    }

    /// The answer that says why there is none.
    pub(super) fn refuse(&self, refusal: &Refusal) -> Response {
        let Refusal { status, code, message } = refusal;
        let said = text("Code", code) + &text("Message", message);
        let body = match self.protocol {
            Protocol::Ec2 => {
                let errors = element("Errors", element("Error", said));
                element("Response", errors + &text("RequestID", &self.id))
            }
            Protocol::Query => {
                let error = element("Error", text("Type", "Sender") + &said);
                element("ErrorResponse", error + &text("RequestId", &self.id))
            }
            Protocol::Json => {
                return self.json_with(*status, &json!({ "__type": code, "message": message }));
            }
            Protocol::Rest => {
                let answer = self.json_with(*status, &json!({ "message": message }));
                return with(answer, "x-amzn-errortype", code);
            }
        };
        with(respond(*status, body), "content-type", "text/xml;charset=UTF-8")
    }
}

impl Protocol {
    /// There were too many requests.
    pub(super) fn throttled(self) -> Refusal {
        let (status, code) = match self {
            Self::Ec2 => (503, "RequestLimitExceeded"),
            Self::Query => (400, "Throttling"),
            Self::Json => (400, "TooManyRequestsException"),
            Self::Rest => (429, "TooManyRequestsException"),
        };
        Refusal::new(status, code, "Request limit exceeded.")
    }

    /// The caller may not do this.
    pub(super) fn denied(self, action: &str) -> Refusal {
        let (status, code) = match self {
            Self::Ec2 => (403, "UnauthorizedOperation"),
            Self::Query => (403, "AccessDenied"),
            Self::Json => (400, "AccessDeniedException"),
            Self::Rest => (403, "AccessDeniedException"),
        };
        Refusal::new(status, code, format!("not authorized to perform: {action}"))
    }

    /// The request is not signed, or not for this service.
    pub(super) fn unsigned(self) -> Refusal {
        let (status, code) = match self {
            Self::Ec2 => (401, "AuthFailure"),
            Self::Query => (403, "SignatureDoesNotMatch"),
            Self::Json | Self::Rest => (403, "InvalidSignatureException"),
        };
        Refusal::new(status, code, "the request is not signed as it must be")
    }
}

impl Refusal {
    pub(super) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }
}

impl Caller {
    /// `None` where the request is not signed, or with a temporary key without its token.
    pub(super) fn of(call: &Call<'_>) -> Option<Self> {
        let authorization = call.request.header("authorization");
        let (_, scope) = authorization.split_once("Credential=")?;
        let scope: Vec<&str> = scope.split([',', ' ']).next()?.split('/').collect();
        let [key, _date, region, service, "aws4_request"] = scope[..] else { return None };
        let temporary = key.strip_prefix("ASIA");
        if temporary.is_some() && call.request.header("x-amz-security-token").is_empty() {
            return None;
        }
        let account = temporary.filter(|rest| rest.len() == 12).unwrap_or(HOME_ACCOUNT);
        Some(Self {
            account: account.to_owned(),
            region: region.to_owned(),
            service: service.to_owned(),
            is_temporary: temporary.is_some(),
        })
    }
}

/// What a request asks for, whatever its protocol.
pub fn action_of(request: &Request) -> String {
    if let Some((_, action)) = request.header("x-amz-target").split_once('.') {
        return action.to_owned();
    }
    let segments: Vec<&str> = request.path.trim_matches('/').split('/').collect();
    match segments[..] {
        ["clusters", _, "node-groups"] => return "ListNodegroups".to_owned(),
        ["clusters", _, "node-groups", _] => return "DescribeNodegroup".to_owned(),
        _ => {}
    }
    let action = fields(&request.body).into_iter().find(|(key, _)| key == "Action");
    action.map(|(_, action)| action).unwrap_or_default()
}

/// A page of `items` and the token of the next one. So many are on it as the caller wants, or else
/// `size`; 0 for all.
pub(super) fn page<'i, T>(
    items: &'i [T],
    token: Option<&str>,
    wanted: Option<usize>,
    size: usize,
) -> (&'i [T], Option<String>) {
    let start = token.and_then(|token| token.parse().ok()).unwrap_or(0).min(items.len());
    let sizes = [wanted.unwrap_or(0), size];
    let size = sizes.into_iter().filter(|size| *size > 0).min().unwrap_or(items.len());
    let end = start.saturating_add(size).min(items.len());
    (&items[start..end], (end < items.len()).then(|| end.to_string()))
}

/// The fields of a query or of a form.
fn fields(text: &[u8]) -> Vec<(String, String)> {
    form_urlencoded::parse(text).into_owned().collect()
}
