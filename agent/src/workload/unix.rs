//! `unix`: the user, the groups and, where asked, the executable of a process.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use aws_lc_rs::digest::{Context, SHA256};
use spire_core::catalog::Plugin;
use spire_core::config::{FromSection, Reader};
use spire_core::selector::Selector;
use spire_core::workload::{Process, WorkloadAttestor, WorkloadError};

use super::caller::proc_folder;
use super::names::Names;

const NAME: &str = "unix";
/// Largest status file of a process that is read; a process may have 65,536 groups.
const MAX_STATUS_BYTES: u64 = 1 << 20;
/// Executables whose digest is remembered.
const MAX_DIGESTS: usize = 256;

/// `unix` of the agent.
pub const PLUGIN: Plugin<dyn WorkloadAttestor> =
    Plugin { name: NAME, build: |section, _host| Ok(Arc::new(Unix::new(section.decode()?))) };

/// What is found beside users and groups.
#[derive(Debug, Clone, Copy, Default)]
struct Config {
    discover_workload_path: bool,
    digest: Digesting,
}

/// Whether an executable is read to its end.
#[derive(Debug, Clone, Copy, Default)]
enum Digesting {
    #[default]
    Always,
    Never,
    /// Where it is no larger than this many bytes; a larger one fails the attestation.
    UpTo(u64),
}

impl FromSection for Config {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let discover_workload_path = reader.flag("discover_workload_path");
        let digest = match reader.integer::<i64>("workload_size_limit").unwrap_or_default() {
            0 => Digesting::Always,
            limit => u64::try_from(limit).map_or(Digesting::Never, Digesting::UpTo),
        };
        Some(Self { discover_workload_path, digest })
    }
}

/// Which file an executable is, and in which state: a change of its content changes one of these.
type FileState = (u64, u64, u64, i64, i64, i64, i64);

struct Unix {
    config: Config,
    users: Names,
    groups: Names,
    digests: Mutex<HashMap<FileState, String>>,
}

#[async_trait]
impl WorkloadAttestor for Unix {
    async fn attest(&self, process: &Process) -> Result<Vec<Selector>, WorkloadError> {
        let mut values = vec![format!("uid:{}", process.uid)];
        values.extend(self.users.of(process.uid).await.map(|name| format!("user:{name}")));
        values.push(format!("gid:{}", process.gid));
        values.extend(self.groups.of(process.gid).await.map(|name| format!("group:{name}")));
        for gid in supplementary_groups(process.pid)? {
            values.push(format!("supplementary_gid:{gid}"));
            let name = self.groups.of(gid).await;
            values.extend(name.map(|name| format!("supplementary_group:{name}")));
        }
        if self.config.discover_workload_path {
            values.extend(self.executable(process.pid).await?);
        }
        let selector = |value: String| Selector::new(NAME, &value);
        values.into_iter().map(selector).collect::<Result<_, _>>().map_err(failed("bad selector"))
    }
}

impl Unix {
    fn new(config: Config) -> Self {
        Self { config, users: Names::users(), groups: Names::groups(), digests: Mutex::default() }
    }

    async fn executable(&self, pid: u32) -> Result<Vec<String>, WorkloadError> {
        let link = proc_folder(pid).join("exe");
        let path = fs::read_link(&link).map_err(failed("failed to get path"))?;
        let mut values = vec![format!("path:{}", path.display())];
        let limit = match self.config.digest {
            Digesting::Never => return Ok(values),
            Digesting::Always => u64::MAX,
            Digesting::UpTo(limit) => limit,
        };
        // The link leads to the very file that runs, whatever stands at its path by now.
        let file = File::open(&link).map_err(failed("failed to open executable"))?;
        let metadata = file.metadata().map_err(failed("failed to look at executable"))?;
        if metadata.len() > limit {
            return Err(WorkloadError(format!(
                "workload {} exceeds size limit ({} > {limit})",
                path.display(),
                metadata.len()
            )));
        }
        let state = state(&metadata);
        let known =
            self.digests.lock().unwrap_or_else(PoisonError::into_inner).get(&state).cloned();
        let digest = match known {
            Some(digest) => digest,
            None => self.remember(state, file).await?,
        };
        values.push(format!("sha256:{digest}"));
        Ok(values)
    }

    async fn remember(&self, state: FileState, file: File) -> Result<String, WorkloadError> {
        let digest = tokio::task::spawn_blocking(move || sha256(file))
            .await
            .map_err(failed("failed to read executable"))?
            .map_err(failed("failed to read executable"))?;
        let mut digests = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        if digests.len() >= MAX_DIGESTS {
            digests.clear();
        }
        digests.insert(state, digest.clone());
        Ok(digest)
    }
}

fn state(file: &fs::Metadata) -> FileState {
    (
        file.dev(),
        file.ino(),
        file.size(),
        file.mtime(),
        file.mtime_nsec(),
        file.ctime(),
        file.ctime_nsec(),
    )
}

fn sha256(mut file: File) -> io::Result<String> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(context.finish())),
            read => context.update(&buffer[..read]),
        }
    }
}

/// The groups of a process beside its own, in ascending order.
fn supplementary_groups(pid: u32) -> Result<Vec<u32>, WorkloadError> {
    let path: PathBuf = proc_folder(pid).join("status");
    let status = read_bounded(&path).map_err(failed("failed to get supplementary GIDs"))?;
    Ok(groups_in(&status))
}

fn read_bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_STATUS_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

fn groups_in(status: &str) -> Vec<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    let mut groups: Vec<_> =
        line.split_whitespace().filter_map(|group| group.parse().ok()).collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}

fn failed<E: std::fmt::Display>(doing: &'static str) -> impl Fn(E) -> WorkloadError {
    move |error| WorkloadError(format!("{doing}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn this_process() -> Process {
        Process {
            pid: std::process::id(),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        }
    }

    async fn found(config: Config) -> Result<Vec<String>, WorkloadError> {
        let found = Unix::new(config).attest(&this_process()).await?;
        Ok(found.iter().map(ToString::to_string).collect())
    }

    #[tokio::test]
    async fn users_and_groups_are_found_with_their_names() {
        let values = found(Config::default()).await.unwrap();
        let process = this_process();
        assert_eq!(values[0], format!("unix:uid:{}", process.uid));
        assert!(values.contains(&format!("unix:gid:{}", process.gid)));
        if process.uid == 0 {
            assert_eq!(values[1], "unix:user:root");
            assert!(values.contains(&"unix:group:root".to_owned()));
        }
        assert!(!values.iter().any(|value| value.starts_with("unix:path:")));
    }

    #[tokio::test]
    async fn the_executable_is_found_where_that_is_asked() {
        let config = Config { discover_workload_path: true, digest: Digesting::Always };
        let values = found(config).await.unwrap();
        let path = std::env::current_exe().unwrap();
        assert_eq!(values[values.len() - 2], format!("unix:path:{}", path.display()));
        let digest = sha256(File::open(path).unwrap()).unwrap();
        assert_eq!(values[values.len() - 1], format!("unix:sha256:{digest}"));
    }

    #[tokio::test]
    async fn the_size_limit_holds() {
        let config = Config { discover_workload_path: true, digest: Digesting::UpTo(10) };
        let error = found(config).await.unwrap_err().to_string();
        assert!(error.contains("exceeds size limit"), "{error}");
        let config = Config { discover_workload_path: true, digest: Digesting::Never };
        assert!(!found(config).await.unwrap().iter().any(|value| value.contains("sha256")));
    }

    #[test]
    fn groups_are_ascending() {
        assert_eq!(groups_in("Name:\tx\nGroups:\t30 4 \nVmPeak: 1\n"), [4, 30]);
        assert!(groups_in("Name:\tx\nGroups:\t \n").is_empty());
    }
}
