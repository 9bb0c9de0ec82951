//! PostgreSQL: connection strings, and what errors mean.

use sqlx::ConnectOptions;
use sqlx::error::DatabaseError;
use sqlx::postgres::PgConnectOptions;
use url::Url;

use super::{StoreError, unescape};

/// Keywords that are understood here.
const KEYWORDS: [&str; 12] = [
    "host",
    "hostaddr",
    "port",
    "user",
    "password",
    "dbname",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "application_name",
    "options",
];

/// Keywords that only tune other drivers.
const WITHOUT_EFFECT: [&str; 19] = [
    "binary_parameters",
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "datestyle",
    "disable_prepared_binary_result",
    "extra_float_digits",
    "fallback_application_name",
    "gssencmode",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbspn",
    "krbsrvname",
    "sslinline",
    "sslsni",
    "target_session_attrs",
    "tcp_user_timeout",
];

/// Reads a connection string: a URI, or keywords with values. What is absent comes from the
/// environment variables that every client of PostgreSQL reads, such as `PGPASSWORD`. A keyword
/// that names neither is a setting of the session on the server, such as `search_path`.
///
/// TLS is required unless `sslmode` says otherwise, as in SPIRE. With `sslrootcert` the certificate is
/// checked, but its name only by `verify-full`.
///
/// # Source
/// PostgreSQL, libpq, Connection Strings and Parameter Key Words.
pub(super) fn options(text: &str) -> Result<PgConnectOptions, String> {
    read(text, |name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}

fn read(
    text: &str,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<PgConnectOptions, String> {
    let is_uri = text.starts_with("postgres://") || text.starts_with("postgresql://");
    let given = if is_uri { of_uri(text)? } else { of_keywords(text)? };
    let value = |key: &str| given.iter().rev().find(|pair| pair.0 == key).map(|pair| &*pair.1);
    let host = value("hostaddr").or(value("host")).map(str::to_owned);
    let host = host.or_else(|| environment("PGHOST")).unwrap_or_else(|| "localhost".to_owned());
    if host.contains(',') {
        let why = "host names several servers; name one address, which leads to the primary";
        return Err(why.to_owned());
    }
    let mode = value("sslmode").map(str::to_owned).or_else(|| environment("PGSSLMODE"));
    let root = value("sslrootcert").map(str::to_owned).or_else(|| environment("PGSSLROOTCERT"));
    let mode = match (mode.as_deref(), root.as_deref()) {
        // Nobody is between the two ends of a socket.
        _ if host.starts_with('/') => "disable",
        // Any name has a certificate of some public authority.
        (None | Some("require" | "verify-ca"), Some("system")) => "verify-full",
        (None | Some("require"), Some(_)) => "verify-ca",
        (None, None) => "require",
        (Some(mode), _) => mode,
    };

    let mut url = Url::parse("postgres://localhost").map_err(|error| error.to_string())?;
    let mut query = url.query_pairs_mut();
    for (key, value) in &given {
        match key.as_str() {
            "host" | "hostaddr" | "sslmode" | "sslrootcert" => {}
            "passfile" => return Err("passfile has no effect; let PGPASSFILE name it".to_owned()),
            "port" if value.parse::<u16>().is_err() => return Err("port is no number".to_owned()),
            key if KEYWORDS.contains(&key) => drop(query.append_pair(key, value)),
            key if WITHOUT_EFFECT.contains(&key) => {}
            key => drop(query.append_pair(&format!("options[{key}]"), value)),
        }
    }
    query.append_pair("host", &host).append_pair("sslmode", mode);
    if let Some(root) = root.filter(|root| root != "system") {
        query.append_pair("sslrootcert", &root);
    }
    drop(query);
    let options = PgConnectOptions::from_url(&url).map_err(|error| error.to_string())?;
    Ok(options.disable_statement_logging())
}

type Pairs = Vec<(String, String)>;

fn of_uri(text: &str) -> Result<Pairs, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    let mut pairs = Pairs::new();
    let mut add = |key: &str, value: Option<&str>| match value {
        None | Some("") => Ok(()),
        Some(value) => unescape(value).map(|value| pairs.push((key.to_owned(), value))),
    };
    add("user", Some(url.username()))?;
    add("password", url.password())?;
    add("host", url.host_str().map(|host| host.trim_matches(['[', ']'])))?;
    add("port", url.port().map(|port| port.to_string()).as_deref())?;
    add("dbname", url.path().strip_prefix('/'))?;
    pairs.extend(url.query_pairs().map(|(key, value)| (key.into_owned(), value.into_owned())));
    Ok(pairs)
}

/// `key = value key='value with spaces'`, with `\` before a quote or a backslash in a value.
fn of_keywords(text: &str) -> Result<Pairs, String> {
    let mut pairs = Pairs::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=').ok_or("a keyword has no = and value")?;
        let key = key.trim_end();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err("a keyword has no = and value".to_owned());
        }
        let after = after.trim_start();
        let quoted = after.strip_prefix('\'');
        let mut characters = quoted.unwrap_or(after).char_indices();
        let mut value = String::new();
        let end = loop {
            match characters.next() {
                None if quoted.is_some() => return Err(format!("the value of {key} has no end")),
                None => break quoted.unwrap_or(after).len(),
                Some((at, '\'')) if quoted.is_some() => break at + 1,
                Some((at, next)) if quoted.is_none() && next.is_whitespace() => break at,
                Some((_, '\\')) => value.extend(characters.next().map(|(_, escaped)| escaped)),
                Some((_, next)) => value.push(next),
            }
        };
        pairs.push((key.to_owned(), value));
        rest = quoted.unwrap_or(after)[end..].trim_start();
    }
    Ok(pairs)
}

/// What an SQLSTATE says.
///
/// # Source
/// PostgreSQL, Appendix A: Error Codes; the first two characters are the class.
pub(super) fn meaning(error: &dyn DatabaseError) -> Option<StoreError> {
    use StoreError::{Conflict, Corrupt, Invalid, Unavailable};
    let code = error.code()?;
    let message = error.message();
    let with = |remedy: &str| Unavailable(format!("{message}; {remedy}"));
    Some(match &*code {
        "40001" | "40P01" => Conflict,
        "25006" => with("is this a replica? connection_string must lead to the primary"),
        "28000" | "28P01" => with("check user and password in connection_string"),
        "3D000" => with("create the database, or correct connection_string"),
        "42501" | "3F000" => with("give the user all rights on a schema of its own"),
        "53100" => with("free space on the disk of the database"),
        "53300" => with("lower max_open_conns, or raise max_connections of the database"),
        "55P03" | "57014" => with("another server holds the lock for long"),
        "XX001" | "XX002" => Corrupt(message.to_owned()),
        code if code.starts_with("22") => Invalid(message.to_owned()),
        code if code.starts_with("23") => Conflict,
        _ => Unavailable(message.to_owned()),
    })
}

/// Whether a database says that it starts, stops, fails over or has too many connections.
pub(super) fn passes(error: &dyn DatabaseError) -> bool {
    let code = error.code().unwrap_or_default();
    ["08", "53", "57P"].iter().any(|class| code.starts_with(class))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pairs of a string, to be compared.
    fn pairs(pairs: &[(&str, &str)]) -> Result<Pairs, String> {
        Ok(pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect())
    }

    #[test]
    fn keywords_may_be_spread_over_lines_and_quoted() {
        let text = "\n  dbname=spire  user = spire\n\tpassword='a \\'b\\\\ c' host=10.0.0.1\n";
        let expected = pairs(&[
            ("dbname", "spire"),
            ("user", "spire"),
            ("password", r"a 'b\ c"),
            ("host", "10.0.0.1"),
        ]);
        assert_eq!(of_keywords(text), expected);
        assert_eq!(of_keywords("a='' b=x"), pairs(&[("a", ""), ("b", "x")]));
        for bad in ["dbname", "a=1 b", "a='x", "=x", "a b=c"] {
            assert!(of_keywords(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_uri_says_the_same_as_keywords() {
        let uri = "postgresql://me:s%40cret@[::1]:5433/spire?sslmode=disable&search_path=own";
        let keywords = "host=::1 port=5433 user=me password=s@cret dbname=spire sslmode=disable \
                        search_path=own connect_timeout=5";
        let (uri, keywords) = (options(uri).unwrap(), options(keywords).unwrap());
        for options in [&uri, &keywords] {
            assert_eq!((options.get_host(), options.get_port()), ("::1", 5433));
            assert_eq!((options.get_username(), options.get_database()), ("me", Some("spire")));
            assert_eq!(options.get_options(), Some("-c search_path=own"));
        }
        assert_eq!(format!("{uri:?}"), format!("{keywords:?}"));
    }

    #[test]
    fn a_connection_without_tls_must_be_asked_for() {
        let mode = |text: &str| format!("{:?}", options(text).unwrap().get_ssl_mode());
        for (text, expected) in [
            ("host=a", "Require"),
            ("host=a sslmode=require", "Require"),
            ("host=a sslmode=prefer", "Prefer"),
            ("host=a sslmode=disable", "Disable"),
            ("host=a sslrootcert=/ca.pem", "VerifyCa"),
            ("host=a sslmode=require sslrootcert=/ca.pem", "VerifyCa"),
            ("host=a sslmode=verify-ca sslrootcert=/ca.pem", "VerifyCa"),
            ("host=a sslmode=verify-full sslrootcert=/ca.pem", "VerifyFull"),
            ("host=a sslmode=verify-ca sslrootcert=system", "VerifyFull"),
            ("host=a sslrootcert=system", "VerifyFull"),
            ("host=/run/postgresql", "Disable"),
        ] {
            assert_eq!(mode(text), expected, "{text}");
        }
        let of_environment = |name: &str| (name == "PGSSLROOTCERT").then(|| "/ca.pem".to_owned());
        let mode = format!("{:?}", read("host=a", of_environment).unwrap().get_ssl_mode());
        assert_eq!(mode, "VerifyCa");
        assert!(options("host=a passfile=/p").unwrap_err().contains("PGPASSFILE"));
        assert!(options("host=a,b").unwrap_err().contains("one address"));
        assert!(options("postgres://me@a,b/spire").unwrap_err().contains("one address"));
        assert!(options("host=a sslmode=sometimes").is_err());
        assert!(options("host=a port=many").is_err());
    }
}
