//! The Unix socket that a command talks to: which one, and the connection.

use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use super::Failure;
use crate::flags::Values;
use crate::limits::OPERATOR_CALL;
use crate::os_error::reason;

/// How a program's socket is found: by `-socketPath`, by `-instance`, by a variable of the
/// environment, else at its usual place.
#[derive(Debug, Clone, Copy)]
pub struct Socket {
    /// The usual place, which is the default of `-socketPath`.
    pub default: &'static str,
    /// The variable that names another place.
    pub variable: Option<&'static str>,
    /// Where the sockets of instances are.
    pub template: Option<Template>,
    /// How the path is shown where nobody answers.
    pub shown: PathForm,
}

/// A variable that holds a path with `%i` for the name of an instance.
#[derive(Debug, Clone, Copy)]
pub struct Template {
    /// Its name.
    pub variable: &'static str,
    /// What is said where it is not set.
    pub missing: &'static str,
}

/// How the path of a socket is shown.
#[derive(Debug, Clone, Copy)]
pub enum PathForm {
    /// As given; two slashes more before an absolute one.
    Target,
    /// Absolute.
    Absolute,
}

impl Socket {
    /// A channel to whoever listens at the socket, which is dialled by the first call.
    ///
    /// # Errors
    /// An instance is named, and the template for its path is missing or has no place for it.
    pub fn channel(&self, values: &Values) -> Result<Channel, Failure> {
        let path = self.path(values, |name| std::env::var(name).ok())?;
        let shown = self.shown.of(&path);
        let endpoint = Endpoint::from_static("http://localhost").timeout(OPERATOR_CALL);
        Ok(endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| {
            let (path, shown) = (path.clone(), shown.clone());
            async move {
                let dialled = UnixStream::connect(path).await;
                dialled.map(TokioIo::new).map_err(|error| DialError { shown, error })
            }
        })))
    }

    fn path(
        &self,
        values: &Values,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<PathBuf, Failure> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let given = ["socketPath", "registrationUDSPath"];
        if let Some(path) = given.into_iter().find_map(|flag| values.given_text(flag)) {
            return Ok(path.into());
        }
        if let Some((template, instance)) = self.template.zip(values.given_text("instance")) {
            let name = template.variable;
            let path = variable(name).ok_or_else(|| Failure::new(template.missing))?;
            if !path.contains("%i") {
                return Err(Failure::new(format!("failed to find %i in {name}")));
            }
            return Ok(path.replace("%i", instance).into());
        }
        Ok(self.variable.and_then(variable).unwrap_or_else(|| self.default.to_owned()).into())
    }
}

impl PathForm {
    fn of(self, path: &Path) -> String {
        match self {
            Self::Target if path.is_absolute() => format!("//{}", path.display()),
            Self::Target => path.display().to_string(),
            Self::Absolute => {
                std::path::absolute(path).as_deref().unwrap_or(path).display().to_string()
            }
        }
    }
}

/// Nobody answers at a socket. The call fails with UNAVAILABLE and this text.
#[derive(Debug, thiserror::Error)]
#[error(
    "connection error: desc = \"transport: Error while dialing: dial unix {shown}: connect: {}\"",
    reason(error)
)]
struct DialError {
    shown: String,
    error: std::io::Error,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::{self, Flag};
    use crate::wire::health::HealthCheckRequest;
    use crate::wire::health::health_client::HealthClient;

    const SOCKET: Socket = Socket {
        default: "/usual",
        variable: Some("SOCKET"),
        template: Some(Template { variable: "TEMPLATE", missing: "no TEMPLATE" }),
        shown: PathForm::Target,
    };

    fn values(line: &str) -> Values {
        let flags = [
            Flag::text("socketPath", "").default("/usual"),
            Flag::text("instance", ""),
            Flag::text("registrationUDSPath", "").former(),
        ];
        let words: Vec<_> = line.split_whitespace().map(ToOwned::to_owned).collect();
        flags::parse(&flags, &words).unwrap()
    }

    #[test]
    fn flags_beat_variables_and_these_the_usual_place() {
        let path = |line: &str, set: &[(&str, &str)]| {
            let variable = |name: &str| {
                set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            };
            match SOCKET.path(&values(line), variable) {
                Ok(path) => path.display().to_string(),
                Err(failure) => failure.to_string(),
            }
        };
        let set = [("SOCKET", "/variable"), ("TEMPLATE", "/run/%i/s")];
        assert_eq!(path("", &[]), "/usual");
        assert_eq!(path("", &[("SOCKET", "")]), "/usual");
        assert_eq!(path("", &set), "/variable");
        assert_eq!(path("-instance a", &set), "/run/a/s");
        assert_eq!(path("-socketPath x -instance a", &set), "x");
        assert_eq!(path("-registrationUDSPath /old", &set), "/old");
        assert_eq!(path("-instance a", &[]), "no TEMPLATE");
        assert_eq!(path("-instance a", &[("TEMPLATE", "/s")]), "failed to find %i in TEMPLATE");
    }

    #[tokio::test]
    async fn a_call_says_at_once_that_nobody_answers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let called = async |socket: Socket| {
            let channel = socket.channel(&values(&format!("-socketPath {}", path.display())));
            let mut client = HealthClient::new(channel.unwrap());
            let called = client.check(HealthCheckRequest::default()).await;
            Failure::from(called.unwrap_err()).to_string()
        };
        let text = |slashes: &str, reason: &str| {
            format!(
                "rpc error: code = Unavailable desc = connection error: desc = \"transport: Error \
                 while dialing: dial unix {slashes}{}: connect: {reason}\"",
                path.display()
            )
        };
        assert_eq!(called(SOCKET).await, text("//", "no such file or directory"));
        let absolute = Socket { shown: PathForm::Absolute, ..SOCKET };
        assert_eq!(called(absolute).await, text("", "no such file or directory"));
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert_eq!(called(absolute).await, text("", "connection refused"));
        assert_eq!(PathForm::Target.of(Path::new("a/s")), "a/s");
    }
}
