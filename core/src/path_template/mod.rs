//! `agent_path_template`: the text from which an attestor makes an agent's path.
//!
//! Templates have the form of Go's `text/template` with the functions of sprig, as SPIRE's users
//! write them: fields (`.Subject.CommonName`), literals, pipes, calls and parentheses. Whatever
//! decides or loops (`if`, `range`, `with`, variables) and functions that need outside state are
//! refused when the file is read.
//!
//! ```text
//! /{{ .PluginName }}/{{ .Fingerprint | trunc 8 | upper }}
//! ```

mod functions;
mod lists;
mod parse;
mod strings;
mod value;

use crate::config::Reader;
use crate::id::{IdError, SpiffeId, TrustDomain};
use parse::{Command, Node, Operand, Pipeline};
pub use value::Value;

/// Longest template in bytes.
const MAX_TEMPLATE_BYTES: usize = 4096;
/// Largest text that a function or the whole template may make, in bytes.
const MAX_TEXT_BYTES: usize = 16 << 10;

/// A template that has been read. It names only functions that exist.
#[derive(Debug, Clone)]
pub struct PathTemplate {
    nodes: Vec<Node>,
    text: Box<str>,
}

/// Why a text is no template, or why it makes no path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The text cannot be read.
    #[error("failed to parse agent path template: {0}")]
    Parse(String),
    /// It could not be applied to this node.
    #[error("failed to execute agent path template: {0}")]
    Execute(String),
    /// What it made is no path of a SPIFFE ID.
    #[error("agent path {path:?} made by the agent path template is not valid: {source}")]
    Path {
        /// What it made.
        path: String,
        /// The rule that it breaks.
        source: IdError,
    },
}

impl PathTemplate {
    /// Reads a template. One without a leading slash gets it, as templates of SPIRE up to 0.12
    /// had none.
    ///
    /// # Errors
    /// [`TemplateError::Parse`] names the place or the function.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.len() > MAX_TEMPLATE_BYTES {
            let error = format!("longer than {MAX_TEMPLATE_BYTES} bytes");
            return Err(TemplateError::Parse(error));
        }
        let mut nodes = parse::parse(text).map_err(TemplateError::Parse)?;
        if !text.starts_with('/') {
            nodes.insert(0, Node::Text("/".into()));
        }
        Ok(Self { nodes, text: text.into() })
    }

    /// Reads the key `agent_path_template`, in whose place `default` stands. A template that makes
    /// slashes whatever the fields are would never make an [`agent_id`](Self::agent_id).
    pub fn read(reader: &mut Reader<'_>, default: &str) -> Option<Self> {
        Self::read_checked(reader, default, |template| match template.makes_slashes() {
            true => Err("an action in braces makes a slash; write slashes outside of the braces"),
            false => Ok(()),
        })
    }

    /// As [`read`](Self::read), for [`agent_id_of_paths`](Self::agent_id_of_paths).
    pub fn read_of_paths(reader: &mut Reader<'_>, default: &str) -> Option<Self> {
        Self::read_checked(reader, default, |_| Ok(()))
    }

    fn read_checked(
        reader: &mut Reader<'_>,
        default: &str,
        check: impl Fn(&Self) -> Result<(), &'static str>,
    ) -> Option<Self> {
        let parse = |text: &str| {
            let template = Self::parse(text).map_err(|error| error.to_string())?;
            check(&template)?;
            Ok(template)
        };
        reader
            .parsed("agent_path_template", "use fields, pipes and functions only", parse)
            .or_else(|| Self::parse(default).ok())
    }

    /// Whether its text has `name` in it, so that the field of that name may be needed.
    pub fn mentions(&self, name: &str) -> bool {
        self.text.contains(name)
    }

    /// Makes the ID `spiffe://<trust domain>/spire/agent<path>` of the node that `fields` describe.
    /// Slashes stand outside of braces: whoever may write a tag shall not choose the parts of an ID,
    /// and with them another node's.
    ///
    /// # Errors
    /// [`TemplateError::Execute`] where a field or key is missing, a function fails or a value has
    /// a slash; [`TemplateError::Path`] where the result is no path.
    pub fn agent_id(
        &self,
        trust_domain: &TrustDomain,
        fields: &Value,
    ) -> Result<SpiffeId, TemplateError> {
        self.make(trust_domain, fields, |value| match value.contains('/') {
            true => Err(format!("{value:?} would be several parts of the path")),
            false => Ok(()),
        })
    }

    /// As [`agent_id`](Self::agent_id), where fields may be paths that the operator's own CA has
    /// given.
    ///
    /// # Errors
    /// As [`agent_id`](Self::agent_id).
    pub fn agent_id_of_paths(
        &self,
        trust_domain: &TrustDomain,
        fields: &Value,
    ) -> Result<SpiffeId, TemplateError> {
        self.make(trust_domain, fields, |_| Ok(()))
    }

    fn make(
        &self,
        trust_domain: &TrustDomain,
        fields: &Value,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Result<SpiffeId, TemplateError> {
        let path = self.render(fields, check).map_err(TemplateError::Execute)?;
        trust_domain
            .member(&format!("/spire/agent{path}"))
            .map_err(|source| TemplateError::Path { path, source })
    }

    /// Whether an action makes a slash though no field has one.
    fn makes_slashes(&self) -> bool {
        let word = |_: &[String]| Ok(Value::from("x"));
        self.nodes.iter().any(|node| match node {
            Node::Text(_) => false,
            // What cannot be applied to a plain word is left to the nodes.
            Node::Action(pipeline) => {
                evaluate(pipeline, &word).is_ok_and(|value| value.to_text().contains('/'))
            }
        })
    }

    /// The text; `check` sees what each action makes.
    fn render(
        &self,
        fields: &Value,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Result<String, String> {
        let field = |path: &[String]| fields.field(path).cloned();
        let mut text = String::new();
        for node in &self.nodes {
            match node {
                Node::Text(literal) => text.push_str(literal),
                Node::Action(pipeline) => {
                    let value = evaluate(pipeline, &field)?.to_text();
                    check(&value)?;
                    text.push_str(&value);
                }
            }
            bounded(&text)?;
        }
        Ok(text)
    }
}

fn bounded(text: &str) -> Result<(), String> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(format!("the result is longer than {MAX_TEXT_BYTES} bytes"));
    }
    Ok(())
}

/// Finds a field by its path.
type Fields<'f> = &'f dyn Fn(&[String]) -> Result<Value, String>;

fn evaluate(pipeline: &Pipeline, fields: Fields<'_>) -> Result<Value, String> {
    let mut piped = None;
    for command in &pipeline.0 {
        let value = match command {
            Command::Value(operand) => operand_value(operand, fields)?,
            Command::Call(function, arguments) => {
                let mut values = arguments
                    .iter()
                    .map(|argument| operand_value(argument, fields))
                    .collect::<Result<Vec<_>, _>>()?;
                values.extend(piped.take());
                let value = (function.call)(&values)
                    .map_err(|error| format!("error calling {}: {error}", function.name))?;
                if value.size() > MAX_TEXT_BYTES {
                    return Err(format!("{} makes more than is allowed", function.name));
                }
                value
            }
        };
        piped = Some(value);
    }
    piped.ok_or_else(|| "empty pipeline".to_owned())
}

fn operand_value(operand: &Operand, fields: Fields<'_>) -> Result<Value, String> {
    match operand {
        Operand::Literal(value) => Ok(value.clone()),
        Operand::Field(path) => fields(path),
        Operand::Nested(pipeline, path) => evaluate(pipeline, fields)?.field(path).cloned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> Value {
        Value::map([
            ("PluginName", "x509pop".into()),
            ("Fingerprint", "ab12".into()),
            ("Empty", "".into()),
            (
                "Subject",
                Value::map([
                    ("CommonName", "Web Server.example".into()),
                    ("Organization", Value::List(vec!["Acme".into(), "Ops".into()])),
                ]),
            ),
            ("URISanSelectors", Value::map([("role", "web".into())])),
        ])
    }

    fn render(text: &str) -> Result<String, TemplateError> {
        let template = PathTemplate::parse(text)?;
        template.render(&fields(), |_| Ok(())).map_err(TemplateError::Execute)
    }

    #[test]
    fn fields_pipes_and_calls() {
        let cases = [
            ("/{{ .PluginName }}/{{ .Fingerprint }}", "/x509pop/ab12"),
            ("{{ .PluginName}}/{{ .Fingerprint }}", "/x509pop/ab12"),
            ("/{{- .PluginName -}} /x", "/x509pop/x"),
            ("/{{/* why */}}{{ .Fingerprint | upper | trunc 2 }}", "/AB"),
            ("/{{ .Subject.CommonName | lower | replace \" \" \"-\" }}", "/web-server.example"),
            ("/{{ index .Subject.Organization 1 }}", "/Ops"),
            ("/{{ (index .Subject.Organization 0) | lower }}", "/acme"),
            ("/{{ join \"-\" .Subject.Organization }}", "/Acme-Ops"),
            ("/{{ default \"none\" .Empty }}", "/none"),
            ("/{{ .URISanSelectors.role }}", "/web"),
            ("/{{ printf \"%s-%s\" .PluginName .Fingerprint }}", "/x509pop-ab12"),
            ("/{{ (splitList \".\" .Subject.CommonName) | last }}", "/example"),
            ("/{{ sha1sum .Fingerprint }}", "/8252bf8992ff56621589ea3a3c32658172b1651a"),
            ("/{{ (dict \"a\" \"b\").a }}", "/b"),
            ("/{{ `raw\\` | replace `\\` `` }}", "/raw"),
        ];
        for (template, path) in cases {
            assert_eq!(render(template).as_deref(), Ok(path), "{template}");
        }
    }

    #[test]
    fn what_is_missing_is_an_error_and_no_path() {
        for template in ["/{{ .Nothing }}", "/{{ .URISanSelectors.zone }}", "/{{ .Empty.More }}"] {
            assert!(matches!(render(template), Err(TemplateError::Execute(_))), "{template}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_when_it_is_read() {
        let cases = [
            "/{{ if .A }}x{{ end }}",
            "/{{ range .A }}",
            "/{{ $x := 1 }}",
            "/{{ env \"HOME\" }}",
            "/{{ uuidv4 }}",
            "/{{ .A",
            "/{{ }}",
            "/{{ \"open }}",
            "/{{ (.A }}",
            "/{{ .A | }}",
            "/{{ upper }}",
        ];
        for template in cases {
            let error = PathTemplate::parse(template);
            assert!(matches!(error, Err(TemplateError::Parse(_))), "{template}: {error:?}");
        }
    }

    #[test]
    fn the_result_must_be_a_path() {
        let domain = TrustDomain::parse("example.org").unwrap();
        let agent_id = |text: &str| {
            PathTemplate::parse(text).and_then(|template| template.agent_id(&domain, &fields()))
        };
        assert_eq!(
            agent_id("/{{ .PluginName }}/a").unwrap().as_str(),
            "spiffe://example.org/spire/agent/x509pop/a"
        );
        for bad in
            ["/{{ .Subject.CommonName }}", "/a/../b", "/a//b", "/{{ .Empty }}", "{{ .Empty }}"]
        {
            assert!(matches!(agent_id(bad), Err(TemplateError::Path { .. })), "{bad}");
        }
    }

    #[test]
    fn a_value_adds_no_parts_to_the_path() {
        let domain = TrustDomain::parse("example.org").unwrap();
        let fields = Value::map([("Role", "web/eu".into())]);
        let template = |text: &str| PathTemplate::parse(text).unwrap();
        for text in ["/{{ .Role }}", "/a/{{ .Role | upper }}", "/{{ printf \"%s\" .Role }}"] {
            let error = template(text).agent_id(&domain, &fields).unwrap_err().to_string();
            assert!(error.contains("several parts of the path"), "{error}");
        }
        let id = template("/a/{{ .Role | replace \"/\" \"-\" }}").agent_id(&domain, &fields);
        assert_eq!(id.unwrap().path(), "/spire/agent/a/web-eu");
        let id = template("/a/{{ .Role }}").agent_id_of_paths(&domain, &fields);
        assert_eq!(id.unwrap().path(), "/spire/agent/a/web/eu");
    }

    #[test]
    fn a_template_that_makes_slashes_for_every_node_is_refused_when_it_is_read() {
        let read = |text: &str| {
            let section = crate::config::Section::parse(&format!("agent_path_template = {text:?}"));
            let section = section.unwrap();
            let (_, strict) = section.read(|reader| PathTemplate::read(reader, "/a"));
            let (_, paths) = section.read(|reader| PathTemplate::read_of_paths(reader, "/a"));
            assert!(paths.mistakes.is_empty(), "{text}: {paths:?}");
            strict.mistakes.into_iter().map(|mistake| mistake.message).collect::<Vec<_>>()
        };
        for text in [
            "{{ printf \"/%s\" .InstanceID }}",
            "/a/{{ list .AccountID .Region | join \"/\" }}",
            "/{{ printf \"%s/%s\" .PluginName .Tags.Role }}",
        ] {
            let mistakes = read(text);
            assert_eq!(mistakes.len(), 1, "{text}: {mistakes:?}");
            assert!(mistakes[0].contains("write slashes outside of the braces"), "{mistakes:?}");
        }
        for text in [
            "/{{ .PluginName }}/{{ .Tags.Role | replace \"/\" \"-\" }}",
            "/{{ index .Tags \"a/b\" }}",
            "/{{ (splitList \"/\" .Name) | last }}",
        ] {
            assert_eq!(read(text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn results_are_bounded() {
        let template = "/{{ repeat 1000 (repeat 1000 \"x\") }}";
        assert!(matches!(render(template), Err(TemplateError::Execute(_))));
        let nested = format!("/{{{{ {}\"x\"{} }}}}", "(".repeat(500), ")".repeat(500));
        assert!(matches!(PathTemplate::parse(&nested), Err(TemplateError::Parse(_))));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}") {
            let _ = render(&text);
            let _ = render(&format!("/{{{{ {text} }}}}"));
        }

        #[test]
        fn whatever_a_certificate_says_the_id_stays_below_that_of_agents(name in "[a-z/.]{0,9}|.{0,9}") {
            let domain = TrustDomain::parse("example.org").unwrap();
            let fields = Value::map([("Name", Value::from(name.as_str()))]);
            for text in ["{{ .Name }}", "/{{ .Name }}", "/a/{{ .Name }}/b"] {
                let template = PathTemplate::parse(text).unwrap();
                if let Ok(id) = template.agent_id_of_paths(&domain, &fields) {
                    proptest::prop_assert!(id.is_agent() && id.is_member_of(&domain), "{}", id);
                    let (before, after) = text.split_once("{{ .Name }}").unwrap();
                    let before = before.trim_start_matches('/');
                    let path = format!("/spire/agent/{before}{name}{after}");
                    proptest::prop_assert_eq!(id.path(), path);
                }
            }
        }
    }
}
