//! MySQL and MariaDB: connection strings, and what errors mean.

use sqlx::ConnectOptions;
use sqlx::error::DatabaseError;
use sqlx::mysql::{MySqlConnectOptions, MySqlDatabaseError, MySqlSslMode};

use super::super::settings::TlsFiles;
use super::{StoreError, unescape};

/// Reads `user:password@protocol(address)/database?parameters`, as Go's driver writes it. Of the
/// parameters `tls` and `allowCleartextPasswords` have an effect; texts, times and time limits are
/// the server's own business here. `parseTime=true` must be there, as in SPIRE.
///
/// Without `tls` the connection is encrypted where the database can do so, and the database is
/// checked where files for TLS are set.
///
/// # Source
/// The driver's grammar of data source names: the last `/` and the last `@` before it divide.
pub(super) fn options(text: &str, files: &TlsFiles) -> Result<MySqlConnectOptions, String> {
    let form = "it must have the form user:password@tcp(host:port)/database?parseTime=true";
    let (server, database) = text.rsplit_once('/').ok_or(form)?;
    let (database, parameters) = database.split_once('?').unwrap_or((database, ""));
    let (credentials, address) = server.rsplit_once('@').unwrap_or(("", server));
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let (protocol, address) = match address.split_once('(') {
        Some((protocol, address)) => (protocol, address.strip_suffix(')').ok_or(form)?),
        None => (address, ""),
    };

    let mut options = MySqlConnectOptions::new().username(user);
    if !password.is_empty() {
        options = options.password(password);
    }
    let database = unescape(database)?;
    if database.is_empty() {
        return Err(format!("it names no database; {form}"));
    }
    options = options.database(&database);
    options = match protocol {
        "" | "tcp" => {
            let (host, port) = host_and_port(address)?;
            options.host(host).port(port)
        }
        "unix" if !address.is_empty() => options.socket(address),
        _ => return Err(format!("the protocol is tcp or unix; {form}")),
    };

    let (mut parses_times, mut tls) = (false, None);
    for parameter in parameters.split('&').filter(|text| !text.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match (name, unescape(value)?.as_str()) {
            ("parseTime", "true" | "TRUE" | "True" | "1") => parses_times = true,
            ("tls", value) => tls = Some(mode(value, files)?),
            ("allowCleartextPasswords", "true") => options = options.enable_cleartext_plugin(true),
            _ => {}
        }
    }
    if !parses_times {
        return Err("missing parseTime=true param in connection_string".to_owned());
    }
    let checked =
        if files.are_set() { MySqlSslMode::VerifyIdentity } else { MySqlSslMode::Preferred };
    options = options.ssl_mode(tls.unwrap_or(checked));
    if let Some(path) = &files.root_ca_path {
        options = options.ssl_ca(path);
    }
    if let (Some(certificate), Some(key)) = (&files.client_cert_path, &files.client_key_path) {
        options = options.ssl_client_cert(certificate).ssl_client_key(key);
    }
    Ok(options.disable_statement_logging())
}

fn host_and_port(address: &str) -> Result<(&str, u16), String> {
    let (host, port) = match address.rsplit_once(':') {
        // An address of IPv6 has brackets where a port may follow.
        Some((host, port)) if !port.contains(']') => {
            (host, port.parse().map_err(|_| "its port is no number")?)
        }
        _ => (address, 3306),
    };
    let host = host.trim_matches(['[', ']']);
    Ok((if host.is_empty() { "127.0.0.1" } else { host }, port))
}

/// What `tls=` asks for.
fn mode(value: &str, files: &TlsFiles) -> Result<MySqlSslMode, String> {
    match value {
        "true" | "TRUE" | "True" | "1" => Ok(MySqlSslMode::VerifyIdentity),
        // Whoever sets files wants them to count; SPIRE's driver lets them win as well.
        _ if files.are_set() => Ok(MySqlSslMode::VerifyIdentity),
        "false" | "FALSE" | "False" | "0" => Ok(MySqlSslMode::Disabled),
        "skip-verify" => Ok(MySqlSslMode::Required),
        "preferred" => Ok(MySqlSslMode::Preferred),
        _ => Err("parameter tls is true, false, skip-verify or preferred".to_owned()),
    }
}

/// What an error's number says.
///
/// # Source
/// MySQL, Error Message Reference; MariaDB, Error Codes.
pub(super) fn meaning(error: &dyn DatabaseError) -> Option<StoreError> {
    use StoreError::{Conflict, Corrupt, Invalid, Unavailable};
    let error = error.try_downcast_ref::<MySqlDatabaseError>()?;
    let message = error.message();
    let with = |remedy: &str| Unavailable(format!("{message}; {remedy}"));
    Some(match error.number() {
        1213 | 1022 | 1062 | 1169 | 1451 | 1452 => Conflict,
        1205 => with("another server holds the lock for long"),
        1040 | 1203 => with("lower max_open_conns, or raise max_connections of the database"),
        1044 | 1142 | 1227 => with("give the user all rights on a database of its own"),
        1045 | 1698 => with("check user and password in connection_string"),
        1049 => with("create the database, or correct connection_string"),
        1021 | 1114 => with("free space on the disk of the database"),
        1290 | 1836 => with("is this a replica? connection_string must lead to the primary"),
        1034 | 1035 | 1194 | 1195 => Corrupt(message.to_owned()),
        1264 | 1366 | 1406 => Invalid(message.to_owned()),
        _ => Unavailable(message.to_owned()),
    })
}

/// Whether a database says that it stops or has too many connections.
pub(super) fn passes(error: &dyn DatabaseError) -> bool {
    let error = error.try_downcast_ref::<MySqlDatabaseError>();
    error.is_some_and(|error| matches!(error.number(), 1040 | 1053 | 1203))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<MySqlConnectOptions, String> {
        options(text, &TlsFiles::default())
    }

    #[test]
    fn names_are_read_as_gos_driver_reads_them() {
        let full = read("me:p@ss:w/rd@tcp([fe80::1]:3307)/spire?charset=utf8&parseTime=true");
        let full = full.unwrap();
        assert_eq!((full.get_host(), full.get_port()), ("fe80::1", 3307));
        assert_eq!((full.get_username(), full.get_database()), ("me", Some("spire")));
        let short = read("me@tcp(db.example.org)/my%2Ddb?parseTime=True&loc=Local").unwrap();
        assert_eq!((short.get_host(), short.get_port()), ("db.example.org", 3306));
        assert_eq!(short.get_database(), Some("my-db"));
        let bare = read("me@/spire?parseTime=true").unwrap();
        assert_eq!((bare.get_host(), bare.get_port()), ("127.0.0.1", 3306));
        let socket = read("me@unix(/run/mysqld/mysqld.sock)/spire?parseTime=true").unwrap();
        assert_eq!(socket.get_socket().unwrap().to_str(), Some("/run/mysqld/mysqld.sock"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let missing = read("username:@tcp(127.0.0.1)/spire_test").unwrap_err();
        assert_eq!(missing, "missing parseTime=true param in connection_string");
        for bad in [
            "spire",
            "me@tcp(a/spire?parseTime=true",
            "me@tcp(a:x)/spire?parseTime=true",
            "me@udp(a)/spire?parseTime=true",
            "me@tcp(a)/?parseTime=true",
            "me@tcp(a)/spire?parseTime=true&tls=mine",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn files_for_tls_make_the_database_prove_itself() {
        let of = |tls: &str, files: &TlsFiles| {
            let text = format!("me@tcp(a)/spire?parseTime=true{tls}");
            format!("{:?}", options(&text, files).unwrap().get_ssl_mode())
        };
        let none = TlsFiles::default();
        let root = TlsFiles { root_ca_path: Some("/ca.pem".into()), ..TlsFiles::default() };
        for (tls, files, expected) in [
            ("", &none, "Preferred"),
            ("&tls=true", &none, "VerifyIdentity"),
            ("&tls=skip-verify", &none, "Required"),
            ("&tls=false", &none, "Disabled"),
            ("", &root, "VerifyIdentity"),
            ("&tls=custom", &root, "VerifyIdentity"),
        ] {
            assert_eq!(of(tls, files), expected, "{tls}");
        }
    }
}
