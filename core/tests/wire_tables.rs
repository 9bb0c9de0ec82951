//! Our descriptors against the published tables: every service, method, message, field number,
//! label, type, oneof, JSON name and enum value, in both directions.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use prost_reflect::{Cardinality, DescriptorPool, EnumDescriptor, FieldDescriptor, Kind};
use prost_reflect::{MessageDescriptor, ServiceDescriptor};

/// What the tables say, one line each: `message.field = number label type oneof …`.
#[derive(Default)]
struct Facts {
    lines: BTreeSet<String>,
    counts: Counts,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    services: usize,
    methods: usize,
    messages: usize,
    fields: usize,
    enums: usize,
    values: usize,
}

#[test]
fn descriptors_and_tables_say_the_same() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../localstack-tests/data/wire");
    let mut tables = Facts::default();
    for entry in fs::read_dir(folder).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        let mut facts = Facts::default();
        facts.read(&text);
        assert_eq!(facts.counts, stated_counts(&text), "a table was not read in full");
        tables.lines.extend(facts.lines);
    }
    let ours = described();
    let missing: Vec<_> = tables.lines.difference(&ours).collect();
    let invented: Vec<_> = ours.difference(&tables.lines).collect();
    assert!(missing.is_empty(), "in the tables only: {missing:#?}\nours only: {invented:#?}");
    assert!(invented.is_empty(), "ours only: {invented:#?}");
    assert!(tables.lines.len() > 600, "only {} facts were compared", tables.lines.len());
}

#[test]
fn we_23_wl_03_the_workload_api_has_its_methods_and_no_more() {
    let pool = DescriptorPool::decode(spire_core::wire::DESCRIPTORS).unwrap();
    let service = pool.get_service_by_name("SpiffeWorkloadAPI").unwrap();
    let methods: Vec<_> = service.methods().map(|method| method.name().to_owned()).collect();
    let expected = [
        "FetchX509SVID",
        "FetchX509Bundles",
        "FetchJWTSVID",
        "FetchJWTBundles",
        "ValidateJWTSVID",
        "FetchWITSVID",
        "FetchWITBundles",
    ];
    assert_eq!(BTreeSet::from_iter(methods), BTreeSet::from(expected.map(String::from)));
}

impl Facts {
    fn read(&mut self, text: &str) {
        let (mut package, mut section) = (None, None);
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("## Package ") {
                (package, section) = (Some(name.trim_matches('`').to_owned()), None);
            } else if line.starts_with("## No package") {
                (package, section) = (Some(String::new()), None);
            } else if line.starts_with("## ") {
                (package, section) = (None, None);
            } else if let (Some(package), Some(title)) = (&package, line.strip_prefix("### ")) {
                section = self.open(package, title);
            } else if let (Some(package), Some((kind, name))) = (&package, &section)
                && line.starts_with("| ")
            {
                self.row(package, kind, name, line);
            }
        }
    }

    fn open(&mut self, package: &str, title: &str) -> Option<(String, String)> {
        let (kind, name) = title.split_once(' ')?;
        let name = name.trim_matches('`');
        let name = if kind == "Service" { name.to_owned() } else { qualified(package, name) };
        match kind {
            "Service" => self.counts.services += 1,
            "Message" => self.counts.messages += 1,
            "Enum" => self.counts.enums += 1,
            _ => return None,
        }
        self.lines.insert(format!("{kind} {name}"));
        Some((kind.to_owned(), name))
    }

    fn row(&mut self, package: &str, kind: &str, name: &str, line: &str) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        if matches!(cells[0], "no." | "value" | "method path") {
            return;
        }
        match kind {
            "Service" => {
                let [path, how, request, response] = cells[..] else { panic!("{line}") };
                self.counts.methods += 1;
                let (request, response) =
                    (resolved(package, code(request)), resolved(package, code(response)));
                let path = code(path);
                self.lines.insert(format!("method {path} {how} {request} {response}"));
            }
            "Message" => {
                let [number, label, kind, field, notes] = cells[..] else { panic!("{line}") };
                self.counts.fields += 1;
                let kind = code(kind);
                let kind = match kind.strip_prefix("enum ") {
                    Some(name) => format!("enum {}", resolved(package, name)),
                    None => resolved(package, kind),
                };
                let field = code(field);
                let oneof = after(notes, "oneof `").unwrap_or("-");
                let json = after(notes, "json `").map_or_else(|| json_name(field), Into::into);
                let deprecated = notes.contains("deprecated");
                self.lines.insert(format!(
                    "field {name}.{field} = {number} {label} {kind} oneof {oneof} json {json} \
                     deprecated {deprecated}"
                ));
            }
            _ => {
                self.counts.values += 1;
                self.lines.insert(format!("value {name}.{} = {}", code(cells[1]), cells[0]));
            }
        }
    }
}

fn code(cell: &str) -> &str {
    cell.trim_matches('`')
}

fn after<'t>(notes: &'t str, mark: &str) -> Option<&'t str> {
    notes.split_once(mark)?.1.split('`').next()
}

fn qualified(package: &str, name: &str) -> String {
    if package.is_empty() { name.to_owned() } else { format!("{package}.{name}") }
}

/// A type as the tables write it: a scalar, a map, a full name, or one relative to the package.
fn resolved(package: &str, name: &str) -> String {
    if name.starts_with("map<") || name.starts_with("google.") || name.starts_with("spire.") {
        return name.to_owned();
    }
    let is_scalar = name.starts_with(|first: char| first.is_ascii_lowercase());
    if is_scalar { name.to_owned() } else { qualified(package, name) }
}

/// The JSON name that protobuf derives from a field's name.
fn json_name(field: &str) -> String {
    let mut name = String::new();
    let mut raise = false;
    for letter in field.chars() {
        match letter {
            '_' => raise = true,
            _ if raise => {
                name.push(letter.to_ascii_uppercase());
                raise = false;
            }
            _ => name.push(letter),
        }
    }
    name
}

fn stated_counts(text: &str) -> Counts {
    let line = text.lines().find(|line| line.starts_with("**Counts:**")).unwrap();
    let number = |what: &str| {
        let words: Vec<_> = line.split([' ', ',']).filter(|word| !word.is_empty()).collect();
        let whats: Vec<_> = what.split(' ').collect();
        let at = words.windows(whats.len()).position(|found| {
            found.iter().zip(&whats).all(|(word, what)| word.trim_end_matches('s') == *what)
        });
        at.map_or(0, |at| words[at - 1].parse().unwrap())
    };
    Counts {
        services: number("service"),
        methods: number("method"),
        messages: number("message"),
        fields: number("field"),
        enums: number("enum"),
        values: number("enum value"),
    }
}

fn described() -> BTreeSet<String> {
    let pool = DescriptorPool::decode(spire_core::wire::DESCRIPTORS).unwrap();
    let mut lines = BTreeSet::new();
    // The standard health protocol and the well-known types have tables of their own elsewhere, and
    // `spire.cloud` is what comes on top.
    let is_ours = |package: &str| {
        !["google.", "grpc.health.", "spire.cloud."].iter().any(|other| package.starts_with(other))
    };
    for service in pool.services().filter(|service| is_ours(service.package_name())) {
        describe_service(&service, &mut lines);
    }
    for message in pool.all_messages().filter(|message| is_ours(message.package_name())) {
        if !message.is_map_entry() {
            describe_message(&message, &mut lines);
        }
    }
    for described in pool.all_enums().filter(|described| is_ours(described.package_name())) {
        describe_enum(&described, &mut lines);
    }
    lines
}

fn describe_service(service: &ServiceDescriptor, lines: &mut BTreeSet<String>) {
    let name = service.full_name();
    lines.insert(format!("Service {name}"));
    for method in service.methods() {
        let how = match (method.is_client_streaming(), method.is_server_streaming()) {
            (false, false) => "unary",
            (false, true) => "server-stream",
            (true, false) => "client-stream",
            (true, true) => "bidi",
        };
        let (request, response) = (method.input(), method.output());
        lines.insert(format!(
            "method /{name}/{} {how} {} {}",
            method.name(),
            request.full_name(),
            response.full_name()
        ));
    }
}

fn describe_message(message: &MessageDescriptor, lines: &mut BTreeSet<String>) {
    lines.insert(format!("Message {}", message.full_name()));
    for field in message.fields() {
        let oneof = field.containing_oneof();
        let is_optional = oneof.as_ref().is_some_and(|oneof| oneof.name().starts_with('_'));
        let label = if field.is_map() {
            "map"
        } else if is_optional {
            "optional"
        } else if field.cardinality() == Cardinality::Repeated {
            "repeated"
        } else {
            "singular"
        };
        let oneof = oneof.as_ref().filter(|_| !is_optional).map_or("-", |oneof| oneof.name());
        let options = field.field_descriptor_proto().options.clone().unwrap_or_default();
        lines.insert(format!(
            "field {}.{} = {} {label} {} oneof {oneof} json {} deprecated {}",
            message.full_name(),
            field.name(),
            field.number(),
            kind(&field),
            field.json_name(),
            options.deprecated()
        ));
    }
}

fn describe_enum(described: &EnumDescriptor, lines: &mut BTreeSet<String>) {
    lines.insert(format!("Enum {}", described.full_name()));
    for value in described.values() {
        let name = described.full_name();
        lines.insert(format!("value {name}.{} = {}", value.name(), value.number()));
    }
}

fn kind(field: &FieldDescriptor) -> String {
    match field.kind() {
        Kind::Message(entry) if field.is_map() => format!(
            "map<{}, {}>",
            kind(&entry.map_entry_key_field()),
            kind(&entry.map_entry_value_field())
        ),
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(described) => format!("enum {}", described.full_name()),
        scalar => format!("{scalar:?}").to_lowercase(),
    }
}
