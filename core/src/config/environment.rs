//! `-expandEnv`: variables of the environment in the text of a file, before it is parsed.

use super::syntax::MAX_FILE_BYTES;

/// Replaces `$NAME` and `${NAME}` by what `lookup` gives, or nothing; `$$` gives one dollar.
///
/// A dollar before anything else stays. `None` where the result is longer than a file may be.
pub(super) fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> Option<String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    // Behind the last closing brace no name in braces ends, so none is searched for.
    let last_brace = text.rfind('}');
    while let Some(dollar) = rest.find('$') {
        expanded.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        let (name, after) =
            name(after, last_brace.is_some_and(|brace| brace > text.len() - after.len()));
        match name {
            Some("$") => expanded.push('$'),
            Some(name) => expanded.push_str(&lookup(name).unwrap_or_default()),
            None if after.len() == rest.len() - dollar - 1 => expanded.push('$'),
            None => {}
        }
        if expanded.len() > MAX_FILE_BYTES {
            return None;
        }
        rest = after;
    }
    expanded.push_str(rest);
    (expanded.len() <= MAX_FILE_BYTES).then_some(expanded)
}

/// The name behind a dollar and what follows it. Without a name, a lone `${` or `${}` is dropped.
fn name(text: &str, may_close: bool) -> (Option<&str>, &str) {
    if let Some(braced) = text.strip_prefix('{') {
        return match may_close.then(|| braced.find('}')).flatten() {
            Some(0) => (None, &braced[1..]),
            Some(end) => (Some(&braced[..end]), &braced[end + 1..]),
            None => (None, braced),
        };
    }
    let special =
        |byte: u8| matches!(byte, b'*' | b'#' | b'$' | b'@' | b'!' | b'?' | b'-' | b'0'..=b'9');
    let length = match text.bytes().next() {
        Some(first) if special(first) => 1,
        _ => text.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count(),
    };
    if length == 0 { (None, text) } else { (Some(&text[..length]), &text[length..]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_as_go_does_it() {
        let lookup = |name: &str| match name {
            "DOMAIN" => Some("example.org".to_owned()),
            "PORT" => Some("8081".to_owned()),
            _ => None,
        };
        let cases = [
            ("a = \"$DOMAIN\"", "a = \"example.org\""),
            ("${DOMAIN}:${PORT}", "example.org:8081"),
            ("$UNSET|${UNSET}|", "||"),
            ("$$DOMAIN", "$DOMAIN"),
            ("$ $. $", "$ $. $"),
            ("${}x", "x"),
            ("${open", "open"),
            ("é$DOMAINé", "éexample.orgé"),
        ];
        for (text, expected) in cases {
            assert_eq!(expand(text, lookup).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn many_open_braces_cost_no_quadratic_time() {
        // Quadratic time would be hours.
        let open = "${".repeat(MAX_FILE_BYTES / 2);
        assert_eq!(expand(&open, |_| None).as_deref(), Some(""));
        assert_eq!(expand(&format!("{open}}}$"), |_| None).as_deref(), Some("$"));
    }

    #[test]
    fn a_result_beyond_the_limit_is_refused() {
        let long = "x".repeat(1 << 20);
        assert_eq!(expand(&"$A".repeat(5), |_| Some(long.clone())), None);
    }
}
