//! `disk`: an upstream CA whose certificate and key are files on this machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use spire_core::catalog::{Host, Plugin};
use spire_core::config::{ConfigErrors, FromSection, Reader, Section};
use spire_core::upstream::UpstreamAuthority;

use crate::held::{Held, HeldCa, Part, Place, Texts, Unusable};
use crate::pem::Text;

/// Registers the plugin.
pub const PLUGIN: Plugin<dyn UpstreamAuthority> =
    Plugin { name: "disk", build: |section, host| Ok(Arc::new(build(section, host)?)) };

/// The files of the upstream CA.
#[derive(Debug, Clone)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    bundle: Option<PathBuf>,
}

fn build(section: &Section, host: &Host) -> Result<Held<Files>, ConfigErrors> {
    let files: Files = section.decode()?;
    let ca = files.read().and_then(|texts| HeldCa::read(&texts, host.clock.now()));
    match ca {
        Ok(ca) => Ok(Held::new(files, host, Some(ca))),
        Err(Unusable { part, message }) => {
            let setting = match part {
                Part::Certificate => "cert_file_path",
                Part::Key => "key_file_path",
                Part::Bundle => "bundle_file_path",
            };
            let (_, findings) = section.read(|reader| -> Option<()> {
                reader.reject(setting, &message, "set it to a file that can be used");
                None
            });
            Err(ConfigErrors(findings.mistakes))
        }
    }
}

impl FromSection for Files {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        reader.tolerate_unknown();
        reader.ignored("ttl", "the server's ca_ttl decides");
        let certificate = reader.required("cert_file_path", "cert_file_path is required");
        let key = reader.required("key_file_path", "key_file_path is required");
        let bundle = reader.string("bundle_file_path").map(PathBuf::from);
        Some(Self { certificate: certificate?.into(), key: key?.into(), bundle })
    }
}

#[async_trait]
impl Place for Files {
    const PLUGIN: &'static str = "disk";
    const LOOK: Duration = Duration::from_secs(5);

    async fn read(&self) -> Result<Texts, String> {
        let files = self.clone();
        let read = tokio::task::spawn_blocking(move || files.read()).await;
        read.map_err(|err| err.to_string())?.map_err(|err| err.message)
    }
}

impl Files {
    fn read(&self) -> Result<Texts, Unusable> {
        let at = |part, what: &str, path: &Path| {
            Text::of_file(path).map_err(|err| Unusable {
                part,
                message: format!("unable to load upstream CA {what}: {err}"),
            })
        };
        let key = at(Part::Key, "key", &self.key)?;
        let certificate = at(Part::Certificate, "cert", &self.certificate)?;
        let bundle = self.bundle.as_deref().map(|path| at(Part::Bundle, "bundle", path));
        Ok(Texts { certificate, key, bundle: bundle.transpose()? })
    }
}
