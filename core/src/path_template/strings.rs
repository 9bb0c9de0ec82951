//! Functions on texts: sprig's, with sprig's order of arguments (the text comes last).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use regex::Regex;
use sha1::{Digest, Sha1};

use super::functions::{Function, MANY, count, function, integer, text};
use super::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    function("upper", 1..=1, |v| Ok(text(v, 0)?.to_uppercase().into())),
    function("lower", 1..=1, |v| Ok(text(v, 0)?.to_lowercase().into())),
    function("title", 1..=1, |v| {
        Ok(each_word(&text(v, 0)?, |first| first.to_uppercase().collect()).into())
    }),
    function("untitle", 1..=1, |v| {
        Ok(each_word(&text(v, 0)?, |first| first.to_lowercase().collect()).into())
    }),
    function("trim", 1..=1, |v| Ok(text(v, 0)?.trim().into())),
    function("trimAll", 2..=2, |v| {
        let cut = text(v, 0)?;
        Ok(text(v, 1)?.trim_matches(|letter| cut.contains(letter)).into())
    }),
    function("trimPrefix", 2..=2, |v| {
        let whole = text(v, 1)?;
        Ok(whole.strip_prefix(text(v, 0)?.as_str()).unwrap_or(&whole).into())
    }),
    function("trimSuffix", 2..=2, |v| {
        let whole = text(v, 1)?;
        Ok(whole.strip_suffix(text(v, 0)?.as_str()).unwrap_or(&whole).into())
    }),
    function("trunc", 2..=2, truncate),
    function("abbrev", 2..=2, abbreviate),
    function("substr", 3..=3, substring),
    function("repeat", 2..=2, |v| {
        let (times, whole) = (count(v, 0)?, text(v, 1)?);
        if times.saturating_mul(whole.len()) > super::MAX_TEXT_BYTES {
            return Err("the result is too long".to_owned());
        }
        Ok(whole.repeat(times).into())
    }),
    function("replace", 3..=3, |v| {
        let (old, new, whole) = (text(v, 0)?, text(v, 1)?, text(v, 2)?);
        if old.is_empty() {
            return Err("the text to replace is empty".to_owned());
        }
        Ok(whole.replace(&old, &new).into())
    }),
    function("nospace", 1..=1, |v| Ok(text(v, 0)?.split_whitespace().collect::<String>().into())),
    function("contains", 2..=2, |v| Ok(Value::Bool(text(v, 1)?.contains(&text(v, 0)?)))),
    function("hasPrefix", 2..=2, |v| Ok(Value::Bool(text(v, 1)?.starts_with(&text(v, 0)?)))),
    function("hasSuffix", 2..=2, |v| Ok(Value::Bool(text(v, 1)?.ends_with(&text(v, 0)?)))),
    function("quote", 0..=MANY, |v| joined(v, |text| format!("{text:?}"))),
    function("squote", 0..=MANY, |v| joined(v, |text| format!("'{text}'"))),
    function("cat", 0..=MANY, |v| joined(v, ToOwned::to_owned)),
    function("indent", 2..=2, |v| {
        let (spaces, whole) = (" ".repeat(count(v, 0)?.min(256)), text(v, 1)?);
        Ok(format!("{spaces}{}", whole.replace('\n', &format!("\n{spaces}"))).into())
    }),
    function("snakecase", 1..=1, |v| Ok(words(&text(v, 0)?).join("_").into())),
    function("kebabcase", 1..=1, |v| Ok(words(&text(v, 0)?).join("-").into())),
    function("camelcase", 1..=1, |v| {
        let words: Vec<_> = words(&text(v, 0)?);
        Ok(each_word(&words.join(" "), |first| first.to_uppercase().collect())
            .replace(' ', "")
            .into())
    }),
    function("toString", 1..=1, |v| Ok(v[0].to_text().into())),
    function("print", 0..=MANY, |v| Ok(v.iter().map(Value::to_text).collect::<String>().into())),
    function("printf", 1..=MANY, print_formatted),
    function("base", 1..=1, |v| {
        let whole = text(v, 0)?;
        let name = whole.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
        Ok(match (whole.as_str(), name.as_str()) {
            ("", _) => ".".into(),
            (_, "") => "/".into(),
            _ => name.into(),
        })
    }),
    function("dir", 1..=1, |v| {
        let whole = text(v, 0)?;
        Ok(match whole.rsplit_once('/') {
            None => ".".into(),
            Some((folder, _)) if folder.trim_matches('/').is_empty() => "/".into(),
            Some((folder, _)) => folder.trim_end_matches('/').into(),
        })
    }),
    function("ext", 1..=1, |v| {
        let whole = text(v, 0)?;
        let name = whole.rsplit('/').next().unwrap_or_default();
        Ok(name.rfind('.').map_or("", |dot| &name[dot..]).into())
    }),
    function("b64enc", 1..=1, |v| Ok(STANDARD.encode(text(v, 0)?).into())),
    function("b64dec", 1..=1, |v| {
        let bytes = STANDARD.decode(text(v, 0)?).map_err(|error| error.to_string())?;
        String::from_utf8(bytes).map(Into::into).map_err(|_| "not a text".to_owned())
    }),
    function("sha1sum", 1..=1, |v| Ok(hex::encode(Sha1::digest(text(v, 0)?)).into())),
    function("sha256sum", 1..=1, |v| {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text(v, 0)?.as_bytes());
        Ok(hex::encode(digest).into())
    }),
    function("adler32sum", 1..=1, |v| Ok(adler32(text(v, 0)?.as_bytes()).to_string().into())),
    function("b32enc", 1..=1, |v| Ok(data_encoding::BASE32.encode(text(v, 0)?.as_bytes()).into())),
    function("b32dec", 1..=1, |v| {
        let bytes = data_encoding::BASE32
            .decode(text(v, 0)?.as_bytes())
            .map_err(|error| error.to_string())?;
        String::from_utf8(bytes).map(Into::into).map_err(|_| "not a text".to_owned())
    }),
    function("regexMatch", 2..=2, |v| Ok(Value::Bool(regex(v)?.is_match(&text(v, 1)?)))),
    function("regexFind", 2..=2, |v| {
        Ok(regex(v)?.find(&text(v, 1)?).map_or("", |found| found.as_str()).into())
    }),
    function("regexFindAll", 3..=3, |v| {
        let (regex, whole) = (regex(v)?, text(v, 1)?);
        let found = regex.find_iter(&whole).map(|found| found.as_str().into());
        Ok(Value::List(found.take(limit(v, 2)?).collect()))
    }),
    function("regexReplaceAll", 3..=3, |v| {
        Ok(regex(v)?.replace_all(&text(v, 1)?, text(v, 2)?.as_str()).into_owned().into())
    }),
    function("regexReplaceAllLiteral", 3..=3, |v| {
        let (whole, new) = (text(v, 1)?, text(v, 2)?);
        Ok(regex(v)?.replace_all(&whole, regex::NoExpand(&new)).into_owned().into())
    }),
    function("regexSplit", 3..=3, |v| {
        let (regex, whole) = (regex(v)?, text(v, 1)?);
        let parts = regex.splitn(&whole, limit(v, 2)?);
        Ok(Value::List(parts.map(Into::into).collect()))
    }),
    function("regexQuoteMeta", 1..=1, |v| Ok(regex::escape(&text(v, 0)?).into())),
];

/// A pattern, bounded in what it may cost.
fn regex(values: &[Value]) -> Result<Regex, String> {
    regex::RegexBuilder::new(&text(values, 0)?)
        .size_limit(1 << 20)
        .build()
        .map_err(|error| error.to_string())
}

/// How many results are wanted; a negative number means all.
fn limit(values: &[Value], at: usize) -> Result<usize, String> {
    Ok(usize::try_from(integer(values, at)?).unwrap_or(super::MAX_TEXT_BYTES))
}

fn joined(values: &[Value], form: impl Fn(&str) -> String) -> Result<Value, String> {
    let texts: Vec<_> = values.iter().map(|value| form(&value.to_text())).collect();
    Ok(texts.join(" ").into())
}

fn each_word(whole: &str, change: impl Fn(char) -> String) -> String {
    let mut text = String::with_capacity(whole.len());
    let mut starts = true;
    for letter in whole.chars() {
        if starts {
            text.push_str(&change(letter))
        } else {
            text.push(letter)
        }
        starts = letter.is_whitespace();
    }
    text
}

/// The words of a name in any case: `WebServer-1 x` → `web`, `server`, `1`, `x`.
fn words(whole: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = ' ';
    for letter in whole.chars() {
        let breaks = letter.is_uppercase() && (before.is_lowercase() || before.is_numeric());
        if breaks || !letter.is_alphanumeric() {
            words.push(String::new());
        }
        if let (true, Some(word)) = (letter.is_alphanumeric(), words.last_mut()) {
            word.extend(letter.to_lowercase());
        }
        before = letter;
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The first `n` letters, or the last where `n` is negative.
fn truncate(values: &[Value]) -> Result<Value, String> {
    let (wanted, whole) = (integer(values, 0)?, text(values, 1)?);
    let length = whole.chars().count();
    let keep = usize::try_from(wanted.unsigned_abs()).unwrap_or(length).min(length);
    let skip = if wanted < 0 { length - keep } else { 0 };
    Ok(whole.chars().skip(skip).take(keep).collect::<String>().into())
}

fn abbreviate(values: &[Value]) -> Result<Value, String> {
    let (width, whole) = (count(values, 0)?, text(values, 1)?);
    if width < 4 || whole.chars().count() <= width {
        return Ok(whole.into());
    }
    Ok((whole.chars().take(width - 3).collect::<String>() + "...").into())
}

fn substring(values: &[Value]) -> Result<Value, String> {
    let whole = text(values, 2)?;
    let length = whole.chars().count();
    let start = usize::try_from(integer(values, 0)?).unwrap_or(0).min(length);
    let end = usize::try_from(integer(values, 1)?).unwrap_or(length).min(length);
    Ok(whole.chars().take(end).skip(start).collect::<String>().into())
}

/// `printf` with the verbs that make sense in a path: `%s`, `%v`, `%d`, `%q` and `%%`.
fn print_formatted(values: &[Value]) -> Result<Value, String> {
    let form = text(values, 0)?;
    let mut arguments = values[1..].iter();
    let mut made = String::new();
    let mut letters = form.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            made.push(letter);
            continue;
        }
        let verb = letters.next().ok_or("the format ends in %")?;
        if verb == '%' {
            made.push('%');
            continue;
        }
        let value = arguments.next().ok_or("too few arguments for the format")?;
        match (verb, value) {
            ('d', Value::Integer(number)) => made.push_str(&number.to_string()),
            ('s' | 'v', _) => made.push_str(&value.to_text()),
            ('q', _) => made.push_str(&format!("{:?}", value.to_text())),
            _ => return Err(format!("the format %{verb} does not fit its argument")),
        }
    }
    match arguments.next() {
        Some(_) => Err("too many arguments for the format".to_owned()),
        None => Ok(made.into()),
    }
}

/// # Source
/// RFC 1950, 8.2.
fn adler32(bytes: &[u8]) -> u32 {
    let (low, high) = bytes.iter().fold((1_u32, 0_u32), |(low, high), byte| {
        let low = (low + u32::from(*byte)) % 65_521;
        (low, (high + low) % 65_521)
    });
    high << 16 | low
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(name: &str, arguments: &[Value]) -> String {
        let function = FUNCTIONS.iter().find(|function| function.name == name).unwrap();
        (function.call)(arguments).unwrap().to_text()
    }

    #[test]
    fn texts_are_changed_as_sprig_changes_them() {
        let n = Value::Integer;
        let cases: &[(&str, &[Value], &str)] = &[
            ("title", &["hello world".into()], "Hello World"),
            ("trunc", &[n(5), "hello world".into()], "hello"),
            ("trunc", &[n(-5), "hello world".into()], "world"),
            ("abbrev", &[n(5), "hello world".into()], "he..."),
            ("substr", &[n(0), n(5), "hello world".into()], "hello"),
            ("trimAll", &["$".into(), "$5.00$".into()], "5.00"),
            ("trimSuffix", &["-".into(), "hello-".into()], "hello"),
            ("replace", &[" ".into(), "-".into(), "I Am".into()], "I-Am"),
            ("snakecase", &["FirstName".into()], "first_name"),
            ("kebabcase", &["FirstName".into()], "first-name"),
            ("camelcase", &["http_server".into()], "HttpServer"),
            ("base", &["foo/bar/baz".into()], "baz"),
            ("dir", &["foo/bar/baz".into()], "foo/bar"),
            ("ext", &["foo.bar".into()], ".bar"),
            ("b64enc", &["abc".into()], "YWJj"),
            ("b32dec", &["MFRGG===".into()], "abc"),
            ("adler32sum", &["Wikipedia".into()], "300286872"),
            ("regexReplaceAll", &["a(x*)b".into(), "-ab-axxb-".into(), "${1}W".into()], "-W-xxW-"),
            ("regexFindAll", &["[2,4]".into(), "1234".into(), n(-1)], "[2 4]"),
            ("cat", &["hello".into(), n(1)], "hello 1"),
        ];
        for (name, arguments, result) in cases {
            assert_eq!(&call(name, arguments), result, "{name}");
        }
        let digest = call("sha256sum", &["abc".into()]);
        assert!(digest.starts_with("ba7816bf8f01cfea"));
    }
}
