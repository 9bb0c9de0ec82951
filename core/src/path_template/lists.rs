//! Functions on lists and maps, and those that choose.

use std::collections::BTreeMap;

use super::functions::{Function, MANY, count, function, integer, list, text};
use super::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    function("list", 0..=MANY, |v| Ok(Value::List(v.to_vec()))),
    function("tuple", 0..=MANY, |v| Ok(Value::List(v.to_vec()))),
    function("splitList", 2..=2, |v| {
        let (separator, whole) = (text(v, 0)?, text(v, 1)?);
        Ok(Value::List(whole.split(separator.as_str()).map(Into::into).collect()))
    }),
    function("join", 2..=2, |v| {
        let items: Vec<_> = list(v, 1)?.iter().map(Value::to_text).collect();
        Ok(items.join(&text(v, 0)?).into())
    }),
    function("sortAlpha", 1..=1, |v| {
        let mut items: Vec<_> = list(v, 0)?.iter().map(Value::to_text).collect();
        items.sort();
        Ok(Value::List(items.into_iter().map(Into::into).collect()))
    }),
    function("toStrings", 1..=1, |v| {
        Ok(Value::List(list(v, 0)?.iter().map(|item| item.to_text().into()).collect()))
    }),
    function("first", 1..=1, |v| list(v, 0)?.first().cloned().ok_or_else(no_items)),
    function("last", 1..=1, |v| list(v, 0)?.last().cloned().ok_or_else(no_items)),
    function("rest", 1..=1, |v| Ok(Value::List(list(v, 0)?.iter().skip(1).cloned().collect()))),
    function("initial", 1..=1, |v| {
        let items = list(v, 0)?;
        Ok(Value::List(items[..items.len().saturating_sub(1)].to_vec()))
    }),
    function("reverse", 1..=1, |v| Ok(Value::List(list(v, 0)?.iter().rev().cloned().collect()))),
    function("uniq", 1..=1, |v| {
        let mut kept: Vec<Value> = Vec::new();
        for item in list(v, 0)? {
            if !kept.contains(item) {
                kept.push(item.clone());
            }
        }
        Ok(Value::List(kept))
    }),
    function("has", 2..=2, |v| Ok(Value::Bool(list(v, 1)?.contains(&v[0])))),
    function("without", 1..=MANY, |v| {
        let kept = list(v, 0)?.iter().filter(|item| !v[1..].contains(item));
        Ok(Value::List(kept.cloned().collect()))
    }),
    function("append", 2..=2, |v| Ok(Value::List([list(v, 0)?, &v[1..]].concat()))),
    function("prepend", 2..=2, |v| Ok(Value::List([&v[1..], list(v, 0)?].concat()))),
    function("concat", 0..=MANY, |v| {
        let lists = (0..v.len()).map(|at| list(v, at)).collect::<Result<Vec<_>, _>>()?;
        Ok(Value::List(lists.concat()))
    }),
    function("slice", 1..=3, |v| {
        let items = list(v, 0)?;
        let start = if v.len() > 1 { count(v, 1)? } else { 0 };
        let end = if v.len() > 2 { count(v, 2)? } else { items.len() };
        items
            .get(start..end)
            .map(|part| Value::List(part.to_vec()))
            .ok_or_else(|| format!("slice {start}:{end} of a list of {} items", items.len()))
    }),
    function("index", 2..=2, |v| match &v[0] {
        Value::List(items) => {
            let at = count(v, 1)?;
            items.get(at).cloned().ok_or_else(|| format!("index out of range: {at}"))
        }
        Value::Map(members) => {
            let key = text(v, 1)?;
            members.get(&key).cloned().ok_or_else(|| format!("map has no entry for key {key:?}"))
        }
        _ => Err("argument 1 is neither a list nor a map".to_owned()),
    }),
    function("dict", 0..=MANY, |v| {
        let mut members = BTreeMap::new();
        for pair in v.chunks(2) {
            let value = pair.get(1).cloned().unwrap_or_else(|| "".into());
            members.insert(text(pair, 0)?, value);
        }
        Ok(Value::Map(members))
    }),
    function("get", 2..=2, |v| {
        Ok(map(v, 0)?.get(&text(v, 1)?).cloned().unwrap_or_else(|| "".into()))
    }),
    function("hasKey", 2..=2, |v| Ok(Value::Bool(map(v, 0)?.contains_key(&text(v, 1)?)))),
    function("keys", 1..=1, |v| {
        Ok(Value::List(map(v, 0)?.keys().map(|key| key.as_str().into()).collect()))
    }),
    function("values", 1..=1, |v| Ok(Value::List(map(v, 0)?.values().cloned().collect()))),
    function("default", 2..=2, |v| Ok(v[usize::from(!v[1].is_empty())].clone())),
    function("empty", 1..=1, |v| Ok(Value::Bool(v[0].is_empty()))),
    function("coalesce", 0..=MANY, |v| {
        Ok(v.iter().find(|value| !value.is_empty()).cloned().unwrap_or_else(|| "".into()))
    }),
    function("all", 0..=MANY, |v| Ok(Value::Bool(v.iter().all(|value| !value.is_empty())))),
    function("any", 0..=MANY, |v| Ok(Value::Bool(v.iter().any(|value| !value.is_empty())))),
    function("compact", 1..=1, |v| {
        let kept = list(v, 0)?.iter().filter(|item| !item.is_empty());
        Ok(Value::List(kept.cloned().collect()))
    }),
    function("ternary", 3..=3, |v| match &v[2] {
        Value::Bool(condition) => Ok(v[usize::from(!condition)].clone()),
        _ => Err("argument 3 is not true or false".to_owned()),
    }),
    function("seq", 1..=3, sequence),
    function("fail", 1..=1, |v| Err(text(v, 0)?)),
    function("urlParse", 1..=1, parse_url),
    function("urlJoin", 1..=1, join_url),
];

fn no_items() -> String {
    "the list is empty".to_owned()
}

fn map(values: &[Value], at: usize) -> Result<&BTreeMap<String, Value>, String> {
    match values.get(at) {
        Some(Value::Map(members)) => Ok(members),
        _ => Err(format!("argument {} is not a map", at + 1)),
    }
}

/// Numbers from a start by a step to an end, as one text.
fn sequence(values: &[Value]) -> Result<Value, String> {
    let numbers = (0..values.len()).map(|at| integer(values, at)).collect::<Result<Vec<_>, _>>()?;
    let (start, step, end) = match numbers[..] {
        [end] => (1, if end < 1 { -1 } else { 1 }, end),
        [start, end] => (start, if end < start { -1 } else { 1 }, end),
        [start, step, end] => (start, step, end),
        _ => return Err("takes one to three numbers".to_owned()),
    };
    let mut texts = Vec::new();
    let mut number = start;
    while step != 0 && texts.len() < 1024 && (number - end).signum() != step.signum() {
        texts.push(number.to_string());
        number = number.saturating_add(step);
    }
    Ok(texts.join(" ").into())
}

fn parse_url(values: &[Value]) -> Result<Value, String> {
    let url = url::Url::parse(&text(values, 0)?).map_err(|error| error.to_string())?;
    let hostname = url.host_str().unwrap_or_default();
    let host = url.port().map_or(hostname.to_owned(), |port| format!("{hostname}:{port}"));
    Ok(Value::map([
        ("scheme", url.scheme().into()),
        ("host", host.into()),
        ("hostname", hostname.into()),
        ("path", url.path().into()),
        ("query", url.query().unwrap_or_default().into()),
        ("fragment", url.fragment().unwrap_or_default().into()),
        ("userinfo", url.username().into()),
        ("opaque", "".into()),
    ]))
}

fn join_url(values: &[Value]) -> Result<Value, String> {
    let members = map(values, 0)?;
    let part = |name: &str| members.get(name).map(Value::to_text).unwrap_or_default();
    let marked = |mark: &str, text: String| {
        if text.is_empty() { text } else { format!("{mark}{text}") }
    };
    let user = part("userinfo");
    let user = if user.is_empty() { user } else { format!("{user}@") };
    Ok(format!(
        "{}://{user}{}{}{}{}",
        part("scheme"),
        part("host"),
        part("path"),
        marked("?", part("query")),
        marked("#", part("fragment"))
    )
    .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(name: &str, arguments: &[Value]) -> String {
        let function = FUNCTIONS.iter().find(|function| function.name == name).unwrap();
        (function.call)(arguments).unwrap().to_text()
    }

    #[test]
    fn lists_are_changed_as_sprig_changes_them() {
        let n = Value::Integer;
        let letters = Value::List(vec!["b".into(), "a".into(), "b".into()]);
        let cases: &[(&str, &[Value], &str)] = &[
            ("sortAlpha", std::slice::from_ref(&letters), "[a b b]"),
            ("uniq", std::slice::from_ref(&letters), "[b a]"),
            ("without", &[letters.clone(), "b".into()], "[a]"),
            ("slice", &[letters.clone(), n(1)], "[a b]"),
            ("has", &["a".into(), letters.clone()], "true"),
            ("initial", std::slice::from_ref(&letters), "[b a]"),
            ("default", &["x".into(), "".into()], "x"),
            ("default", &["x".into(), "y".into()], "y"),
            ("ternary", &["yes".into(), "no".into(), Value::Bool(false)], "no"),
            ("coalesce", &["".into(), "z".into()], "z"),
            ("seq", &[n(0), n(2), n(10)], "0 2 4 6 8 10"),
            ("seq", &[n(-3)], "1 0 -1 -2 -3"),
            ("keys", &[Value::map([("k", "v".into())])], "[k]"),
        ];
        for (name, arguments, result) in cases {
            assert_eq!(&call(name, arguments), result, "{name}");
        }
        let (url, parse) = ("https://u@h.example:8443/p?q=1#f", &FUNCTIONS.iter());
        let parsed = parse.clone().find(|f| f.name == "urlParse").unwrap();
        let parsed = (parsed.call)(&[url.into()]).unwrap();
        assert_eq!(call("urlJoin", &[parsed]), url);
    }
}
