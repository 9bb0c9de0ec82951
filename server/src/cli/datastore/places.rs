//! A database as the command line names it: `TYPE:CONNECTION`, and files for TLS beside it.

use spire_core::command::{Context, Failure};
use spire_core::flags::Values;

use crate::store::{DatabaseKind, Settings, TlsFiles};

/// The flags that name one database.
pub(super) struct Flags {
    /// `TYPE:CONNECTION`.
    pub(super) place: &'static str,
    /// Files for TLS: who may vouch for the database, what is shown to it, and the key of that.
    pub(super) root_ca: &'static str,
    pub(super) client_cert: &'static str,
    pub(super) client_key: &'static str,
}

impl Flags {
    /// The settings of the database that the flags name.
    pub(super) fn settings(&self, values: &Values) -> Result<Settings, Failure> {
        let place = self.place;
        let text = values
            .given_text(place)
            .ok_or_else(|| Failure::new(format!("-{place} is required, as TYPE:CONNECTION")))?;
        let (kind, connection) = split(text).ok_or_else(|| {
            let forms = "sqlite3:PATH, postgres:CONNECTION or mysql:CONNECTION";
            Failure::new(format!("-{place} must have the form {forms}"))
        })?;
        let path = |flag: &str| values.given_text(flag).map(Into::into);
        let tls = TlsFiles {
            root_ca_path: path(self.root_ca),
            client_cert_path: path(self.client_cert),
            client_key_path: path(self.client_key),
        };
        if tls.client_cert_path.is_some() != tls.client_key_path.is_some() {
            let (certificate, key) = (self.client_cert, self.client_key);
            return Err(Failure::new(format!("-{certificate} and -{key} go together")));
        }
        let settings = Settings::new(kind, connection).context(format!("-{place}"))?;
        let settings = with_tls(settings, tls).ok_or_else(|| {
            let flags = [self.root_ca, self.client_cert, self.client_key];
            Failure::new(format!("-{} have no meaning for a file", flags.join(", -")))
        })?;
        settings.checked().context(format!("-{place}"))
    }
}

/// The type and the connection string. A URI of PostgreSQL says both by itself.
fn split(text: &str) -> Option<(&str, &str)> {
    match text.split_once(':')? {
        ("postgres" | "postgresql", rest) if rest.starts_with("//") => Some(("postgres", text)),
        parts => Some(parts),
    }
}

/// Nothing comes of it where the database is a file and files for TLS are given.
fn with_tls(settings: Settings, tls: TlsFiles) -> Option<Settings> {
    match settings.kind {
        DatabaseKind::Sqlite => (tls == TlsFiles::default()).then_some(settings),
        DatabaseKind::MySql => Some(Settings { tls, ..settings }),
        DatabaseKind::Postgres => {
            // Here they are a matter of the connection string.
            let files = [
                ("sslrootcert", &tls.root_ca_path),
                ("sslcert", &tls.client_cert_path),
                ("sslkey", &tls.client_key_path),
            ];
            let mut text = settings.connection_string.as_str().to_owned();
            let is_uri = text.contains("://");
            for (key, path) in files {
                let Some(path) = path else { continue };
                let path = path.to_string_lossy();
                if is_uri {
                    let before = if text.contains('?') { '&' } else { '?' };
                    let value: String =
                        url::form_urlencoded::byte_serialize(path.as_bytes()).collect();
                    text.push_str(&format!("{before}{key}={value}"));
                } else {
                    let value = path.replace('\\', r"\\").replace('\'', r"\'");
                    text.push_str(&format!(" {key}='{value}'"));
                }
            }
            Settings::new("postgres", &text).ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_is_what_stands_before_the_first_colon() {
        assert_eq!(split("sqlite3:/a/b:c"), Some(("sqlite3", "/a/b:c")));
        assert_eq!(split("mysql:me:x@tcp(a:1)/b"), Some(("mysql", "me:x@tcp(a:1)/b")));
        assert_eq!(split("postgres:host=a"), Some(("postgres", "host=a")));
        assert_eq!(split("postgres:postgres://a/b"), Some(("postgres", "postgres://a/b")));
        assert_eq!(split("postgresql://a/b"), Some(("postgres", "postgresql://a/b")));
        assert_eq!(split("/a/b"), None);
    }

    #[test]
    fn files_for_tls_reach_every_server() {
        let tls = TlsFiles { root_ca_path: Some("/a'b c".into()), ..TlsFiles::default() };
        let text = |kind, connection| {
            let settings = Settings::new(kind, connection).unwrap();
            let settings = with_tls(settings, tls.clone())?.checked().unwrap();
            Some(settings.connection_string.as_str().to_owned())
        };
        assert_eq!(text("postgres", "host=a").unwrap(), r"host=a sslrootcert='/a\'b c'");
        let uri = text("postgres", "postgres://a/b?x=y").unwrap();
        assert_eq!(uri, "postgres://a/b?x=y&sslrootcert=%2Fa%27b+c");
        assert_eq!(text("sqlite3", "/a"), None);
    }
}
