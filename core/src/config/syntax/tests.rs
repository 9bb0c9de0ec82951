use std::fmt::Write as _;

use proptest::collection::vec;
use proptest::prelude::*;
use zeroize::Zeroizing;

use super::*;

/// Writes a tree as HCL without its places, so that two trees compare by what they hold.
fn hcl(items: &[Item]) -> String {
    let mut text = String::new();
    for Item { key, node, .. } in items {
        match &node.value {
            Value::Block(items) => writeln!(text, "{} {{\n{}}}", quoted(key), hcl(items)).unwrap(),
            value => writeln!(text, "{} = {}", quoted(key), hcl_value(value)).unwrap(),
        }
    }
    text
}

fn hcl_value(value: &Value) -> String {
    match value {
        Value::Text(text) => quoted(text),
        Value::Integer(text) | Value::Float(text) => text.clone(),
        Value::Boolean(value) => value.to_string(),
        Value::Null => "null".to_owned(),
        Value::List(nodes) => {
            let nodes: Vec<_> = nodes.iter().map(|node| hcl_value(&node.value)).collect();
            format!("[{}]", nodes.join(", "))
        }
        Value::Block(items) => format!("{{\n{}}}", hcl(items)),
    }
}

/// A text in quotes that both syntaxes read back.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => write!(quoted, "\\{character}").unwrap(),
            '$' => quoted.push_str("\\u0024"),
            _ if character.is_control() => {
                write!(quoted, "\\u{:04x}", u32::from(character)).unwrap();
            }
            _ => quoted.push(character),
        }
    }
    quoted + "\""
}

fn json(items: &[Item]) -> String {
    let member = |item: &Item| format!("{}: {}", quoted(&item.key), json_value(&item.node.value));
    let members: Vec<String> = items.iter().map(member).collect();
    format!("{{{}}}", members.join(", "))
}

fn json_value(value: &Value) -> String {
    match value {
        Value::Block(items) => json(items),
        Value::List(nodes) => {
            let nodes: Vec<_> = nodes.iter().map(|node| json_value(&node.value)).collect();
            format!("[{}]", nodes.join(", "))
        }
        value => hcl_value(value),
    }
}

fn trees() -> impl Strategy<Value = Vec<Item>> {
    let at = Position { line: 1, column: 1 };
    let literal = prop_oneof![
        "\\PC{0,12}|[\"\\\\${}\n]{0,6}".prop_map(|text| Value::Text(Zeroizing::new(text))),
        any::<i32>().prop_map(|number| Value::Integer(number.to_string())),
        (0..9999_u32).prop_map(|number| Value::Float(format!("{number}.5"))),
        any::<bool>().prop_map(Value::Boolean),
    ];
    let value = literal.prop_recursive(4, 32, 4, move |inner| {
        let items = vec(("[a-z_]{1,6}|\\PC{1,4}", inner.clone()), 0..4).prop_map(move |pairs| {
            let item = |(key, value)| Item { key, at, node: Node { at, value } };
            Value::Block(pairs.into_iter().map(item).collect())
        });
        // Lists of blocks alone mean repeated blocks in JSON; a literal keeps them lists.
        let list = vec(inner, 0..4).prop_map(move |mut values| {
            values.push(Value::Boolean(true));
            Value::List(values.into_iter().map(|value| Node { at, value }).collect())
        });
        prop_oneof![items, list]
    });
    vec(("[a-z_]{1,6}", value), 0..5).prop_map(move |pairs| {
        pairs.into_iter().map(|(key, value)| Item { key, at, node: Node { at, value } }).collect()
    })
}

proptest! {
    #[test]
    fn no_bytes_are_a_panic(bytes in vec(any::<u8>(), 0..400)) {
        let _ = parse(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn no_tokens_are_a_panic(
        tokens in vec(
            prop_oneof![
                Just("{"), Just("}"), Just("["), Just("]"), Just(","), Just("="), Just(":"),
                Just("\""), Just("${"), Just("<<A\n"), Just("\nA\n"), Just("a"), Just("\\u12"),
                Just("0x"), Just("-1."), Just("/*"), Just("*/"), Just("#"), Just("true"),
                Just("null"), Just("\n"), Just("é"),
            ],
            0..60,
        ),
        is_json: bool,
    ) {
        let text = tokens.concat();
        let _ = parse(&if is_json { format!("{{{text}") } else { text });
    }

    #[test]
    fn a_written_tree_is_read_back(items in trees()) {
        let read = parse(&hcl(&items)).unwrap();
        prop_assert_eq!(hcl(&read), hcl(&items));
        let read = parse(&json(&items)).unwrap();
        prop_assert_eq!(json(&read), json(&items));
    }
}

fn same(text: &str, other: &str) {
    assert_eq!(hcl(&parse(text).unwrap()), hcl(&parse(other).unwrap()), "{text}");
}

#[test]
fn the_forms_that_operators_write_are_the_same_tree() {
    let plain = "server {\n bind_port = \"8081\"\n trust_domain = \"a.org\"\n}";
    same("server { bind_port = \"8081\"\ntrust_domain = \"a.org\" }", plain);
    same("server = { bind_port = \"8081\", trust_domain = \"a.org\", }", plain);
    same("\"server\" { \"bind_port\" = \"8081\" \"trust_domain\" = \"a.org\" }", plain);
    same("{\"server\": {\"bind_port\": \"8081\", \"trust_domain\": \"a.org\"}}", plain);
    same("{\"server\": [{\"bind_port\": \"8081\", \"trust_domain\": \"a.org\"}]}", plain);
    same("\u{feff}# c\n// c\n/* c\n * c */".to_owned().as_str(), "");
    same(
        "plugins { DataStore \"sql\" { plugin_data { a = 1 } } }",
        "plugins {\n DataStore {\n sql {\n plugin_data {\n a = 1\n}\n}\n}\n}",
    );
    same("a = [\n \"x\", # one\n \"y\",\n]\r\n", "a = [\"x\", \"y\"]");
    same("{\"a\": [1, 2,],}", "a = [1, 2]");
}

#[test]
fn texts_keep_what_they_say() {
    let text_of = |text: &str| match parse(text).unwrap().remove(0).node.value {
        Value::Text(text) => text.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(text_of("a = \"x ${env(\"HOME\")} y\""), "x ${env(\"HOME\")} y");
    assert_eq!(text_of("a = \"\\t\\\"\\u00e9\\x41\""), "\t\"éA");
    assert_eq!(text_of("{\"a\": \"\\ud83d\\ude00\\/\"}"), "😀/");
    assert_eq!(text_of("a = <<EOT\none\n  two\nEOT\n"), "one\n  two\n");
    assert_eq!(text_of("a = <<-EOT\n  one\n    two\n  EOT\n"), "one\n  two\n");
    assert_eq!(text_of("a = \"host=db\n  user=x\""), "host=db\n  user=x");
}

#[test]
fn what_breaks_the_syntax_is_told_with_its_place() {
    let cases = [
        ("server {\n  bind_address: \"x\"\n}", "At 2:15: illegal char"),
        ("a = 'x'", "At 1:5: illegal char"),
        ("a = \"x", "At 1:5: literal not terminated"),
        ("a = <<EOT\nx\n", "At 1:5: heredoc not terminated"),
        ("/* x", "At 1:1: comment not terminated"),
        ("server {", "At 1:9: object expected closing RBRACE got: EOF"),
        ("server", "At 1:7: key 'server' expected start of object ('{') or assignment ('=')"),
        ("a \"b\" = 1", "At 1:7: nested object expected: LBRACE got: ASSIGN"),
        ("}", "At 1:1: expected: IDENT | STRING | ASSIGN | LBRACE got: RBRACE"),
        ("= 1", "At 1:1: expected: IDENT | STRING got: ASSIGN"),
        ("a = b", "At 1:5: Unknown token: 1:5 IDENT"),
        ("a = [1 2]", "At 1:8: error parsing list, expected comma or list end, got: NUMBER"),
        ("a = 1.2.3", "At 1:5: illegal number"),
        ("a = \"\\q\"", "At 1:6: illegal char escape"),
        ("a = \0", "At 1:5: unexpected null character (0x00)"),
        ("{\"a\" 1}", "At 1:6: expected: COLON got: NUMBER"),
        ("{\"a\": 1} x", "At 1:10: illegal char"),
        ("{\"a\": 1} {", "At 1:10: expected end of file got: LBRACE"),
        ("{\"a\": \"\\ud83dx\"}", "illegal char escape"),
    ];
    for (text, message) in cases {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(message), "{text}: {error}");
    }
}

#[test]
fn a_missing_quote_is_traced_to_its_line() {
    let error = parse("a = \"x\nb = \"y\"\nc = 1").unwrap_err().to_string();
    assert!(error.ends_with("(the text that begins at 1:5 may lack its closing quote)"), "{error}");
}

#[test]
fn limits_hold() {
    let deep = MAX_DEPTH + 5;
    let cases = [
        "a {".repeat(100_000),
        format!("a = {}", "[".repeat(deep)),
        format!("a {} {{}}", "\"x\" ".repeat(100_000)),
        format!("{{\"a\": {}", "[".repeat(100_000)),
        format!("{}1{}", "{\"a\": ".repeat(deep), "}".repeat(deep)),
    ];
    for text in cases {
        let error = parse(&text).unwrap_err();
        assert!(error.message.contains("deep"), "{error}");
    }
    assert!(parse(&"a=1 ".repeat(MAX_TOKENS)).unwrap_err().message.contains("tokens"));
    assert!(parse(&"#".repeat(MAX_FILE_BYTES + 1)).unwrap_err().message.contains("bytes"));
}
