use std::time::Duration;

use super::*;
use crate::config::Section;

/// Reads `text` by `read` and gives the lines of its mistakes.
fn mistakes<T>(text: &str, read: impl FnOnce(&mut Reader<'_>) -> Option<T>) -> Vec<String> {
    let section = Section::parse(text).unwrap();
    let (_, findings) = section.read(|reader| read(reader));
    findings.mistakes.iter().map(ToString::to_string).collect()
}

fn value<T>(text: &str, read: impl FnOnce(&mut Reader<'_>) -> T) -> T {
    let section = Section::parse(text).unwrap();
    let (value, findings) = section.read(|reader| Some(read(reader)));
    assert_eq!(findings.mistakes, [], "{text}");
    value.unwrap()
}

fn warnings<T>(text: &str, read: impl FnOnce(&mut Reader<'_>) -> T) -> Vec<String> {
    let section = Section::parse(text).unwrap();
    let (_, findings) = section.read(|reader| Some(read(reader)));
    assert_eq!(findings.mistakes, [], "{text}");
    findings.warnings.into_iter().map(|warning| warning.message).collect()
}

#[test]
fn values_are_converted_as_spire_converts_them() {
    let port = |text| value(text, |reader| reader.integer::<u16>("port"));
    assert_eq!(port("port = 8081"), Some(8081));
    assert_eq!(port("port = \"8081\""), Some(8081));
    assert_eq!(port("port = 0x1F"), Some(31));
    assert_eq!(port("Port = 1\nPORT = 2"), Some(2));
    assert_eq!(port("port = \"\""), None);
    assert_eq!(port("{\"port\": null}"), None);
    assert_eq!(value("a = 7", |reader| reader.string("a")).as_deref(), Some("7"));
    assert_eq!(value("a = \"\"", |reader| reader.string("a")), None);
    assert_eq!(value("a = [\"x\", 1]", |reader| reader.strings("a")).unwrap(), ["x", "1"]);
    assert_eq!(value("a = []", |reader| reader.strings("a")), Some(Vec::new()));
    assert!(value("a = true", |reader| reader.flag("a")));
    let ttl = |text| value(text, |reader| reader.duration("ttl", "ttl"));
    assert_eq!(ttl("ttl = \"1h\""), Some(Duration::from_hours(1)));
    assert_eq!(ttl("ttl = \"0s\""), None);
}

#[test]
fn values_of_the_wrong_type_are_told_in_spires_words() {
    let all = |reader: &mut Reader<'_>| {
        reader.block_with("server", |reader| {
            reader.string("text");
            reader.boolean("bool");
            reader.integer::<u16>("port");
            reader.strings("list");
            reader.block_with("block", |_| Some(()))
        })
    };
    let cases = [
        ("text = 1.5", "At 1:17: root.server.text: unknown type for string *ast.LiteralType"),
        ("bool = \"true\"", "At 1:17: root.server.bool: unknown type *ast.LiteralType"),
        ("port = \"abc\"", "strconv.ParseInt: parsing \"abc\": invalid syntax"),
        ("port = \"+ 1\"", "strconv.ParseInt: parsing \"+ 1\": invalid syntax"),
        ("port = 70000", "port is out of range"),
        ("list = \"x\"", "At 1:17: unknown slice type: *ast.LiteralType"),
        ("block = [1]", "not an object type for struct (*ast.ListType)"),
    ];
    for (line, sentence) in cases {
        let text = format!("server {{ {line} }}");
        let told = mistakes(&text, all);
        assert!(told.iter().any(|told| told.contains(sentence)), "{line}: {told:?}");
    }
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let told = mistakes("server {\n a = \"1d\"\n b = \"60\"\n}", |reader| {
        reader.block_with("server", |reader| {
            reader.duration("a", "first");
            reader.duration("b", "second");
            reader.required("c", "c is required").map(drop)
        })
    });
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].starts_with(
        "could not parse first \"1d\": time: unknown unit \"d\" in duration \"1d\" \
         (server.a = \"1d\", line 2; "
    ));
    assert!(told[1].contains("time: missing unit in duration \"60\""));
    assert_eq!(told[2], "c is required (server.c, line 1; set c)");
}

#[test]
fn negative_durations_are_refused() {
    let told = mistakes("ttl = \"-1h\"", |reader| reader.duration("ttl", "CA ttl"));
    assert!(told[0].starts_with("could not parse CA ttl \"-1h\": must not be negative"));
}

#[test]
fn no_mistake_shows_a_secret() {
    let told = mistakes("token = \"hunter2\"", |reader| {
        reader.secret("token");
        reader.reject("token", "token is too short", "use a longer one");
        Some(())
    });
    assert_eq!(told, ["token is too short (token, line 1; use a longer one)"]);
    assert!(!format!("{:?}", Section::parse("a = \"hunter2\"").unwrap()).contains("hunter2"));
}

#[test]
fn repeated_blocks_are_one_and_lists_of_blocks_are_several() {
    let text = "s { a = 1 b = 2 }\ns { b = 3 }";
    let read = |reader: &mut Reader<'_>| Some((reader.string("a"), reader.string("b")));
    let (a, b) = value(text, |reader| reader.block_with("s", read)).unwrap();
    assert_eq!((a.as_deref(), b.as_deref()), (Some("1"), Some("3")));
    for text in [
        "s = [{ a = 1 }, { a = 2 }]",
        "s { a = 1 }\ns { a = 2 }",
        "{\"s\": [{\"a\": 1}, {\"a\": 2}]}",
    ] {
        let read = |reader: &mut Reader<'_>| reader.blocks_with("s", |reader| reader.string("a"));
        assert_eq!(value(text, read), ["1", "2"], "{text}");
    }
}

#[test]
fn labels_are_read_one_by_one() {
    let text = "f \"a.org\" { u = 1 }\nf \"b.org\" {}\nf \"a.org\" { v = 2 }";
    let labels = value(text, |reader| {
        reader.labelled("f", |label, reader| {
            Some((label.to_owned(), reader.has("u"), reader.has("v")))
        })
    });
    assert_eq!(labels, [("a.org".into(), true, true), ("b.org".into(), false, false)]);
    let read = |reader: &mut Reader<'_>| {
        reader.labelled("f", |_, reader| reader.required("u", "u is required"));
        Some(())
    };
    let told = mistakes(text, read);
    assert_eq!(told, ["u is required (f[\"b.org\"].u, line 2; set u)"]);
}

#[test]
fn unknown_keys_are_refused_told_or_passed_over() {
    let text = "trust_domian = 1\nzz = 2";
    let section = Section::parse(text).unwrap();
    let (_, findings) = section.read(|reader| {
        reader.refuse_unknown("server");
        reader.string("trust_domain");
        Some(())
    });
    let told: Vec<String> = findings.mistakes.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "unknown configuration detected (trust_domian, line 1; did you mean trust_domain?)",
            "unknown configuration detected (zz, line 2; remove it)"
        ]
    );
    let keys = vec!["trust_domian".to_owned(), "zz".to_owned()];
    assert_eq!(findings.unknown, [UnknownKeys { section: "server", keys }]);

    let told = warnings("zz = 2", |reader| reader.string("a"));
    assert_eq!(told, ["unknown setting \"zz\" has no effect (zz, line 1; remove it)"]);
    assert!(warnings("zz = 2", |reader| reader.tolerate_unknown()).is_empty());
}

#[test]
fn former_names_are_read_with_one_warning() {
    let read = |reader: &mut Reader<'_>| {
        reader.renamed("old", "current");
        reader.string("current")
    };
    assert_eq!(value("old = \"x\"", read).as_deref(), Some("x"));
    assert_eq!(
        warnings("old = \"x\"", read),
        ["old is deprecated; use current instead (old, line 1)"]
    );
    assert_eq!(value("old = \"x\"\ncurrent = \"x\"", read).as_deref(), Some("x"));
    let told = mistakes("old = \"x\"\ncurrent = \"y\"", read);
    assert!(told[0].contains("both are set"), "{told:?}");
    let told = warnings("gone = 1", |reader| reader.ignored("gone", "it was always on"));
    assert_eq!(told, ["gone has no effect: it was always on (gone, line 1)"]);
}

#[test]
fn flags_beat_the_file() {
    let mut section = Section::parse("server { a = \"file\" b = \"file\" }").unwrap();
    section.set_text("server", "a", "flag");
    section.set_true("server", "on");
    section.set_integer("server", "port", 1);
    let (read, findings) = section.read(|reader| {
        reader.block_with("server", |reader| {
            reader.reject("a", "a is bad", "mend it");
            let texts = (reader.string("a"), reader.string("b"));
            Some((texts, reader.flag("on"), reader.integer::<u16>("port")))
        })
    });
    let ((a, b), on, port) = read.unwrap();
    assert_eq!((a.as_deref(), b.as_deref(), on, port), (Some("flag"), Some("file"), true, Some(1)));
    let told = findings.mistakes[0].to_string();
    assert_eq!(told, "a is bad (server.a = \"flag\", command line; mend it)");
}
