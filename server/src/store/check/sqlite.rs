//! What a file can suffer from: its journal mode, the file system below it, a disk that is full.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::FsWord;

use super::super::StoreError;
use super::super::database::Connection;
use super::super::dialect::SqliteLocation;
use super::super::sql::Statement;
use super::Report;

/// Free space below which writes are soon refused, in bytes.
const LITTLE: u64 = 256 << 20;

/// A write-ahead log of that size is not folded into the database, in bytes.
const LONG_LOG: u64 = 1 << 30;

/// File systems of other machines, on which locks and shared memory do not work for SQLite, by the
/// numbers of the kernel.
///
/// # Source
/// Linux, `statfs(2)`.
const NETWORK_FILE_SYSTEMS: [(FsWord, &str); 9] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x0102_1997, "9P"),
    (0x00c3_6400, "Ceph"),
    (0x0bd0_0bd0, "Lustre"),
    (0x5346_414f, "AFS"),
    (0x7461_636f, "OCFS2"),
];

pub(super) async fn look(
    location: &SqliteLocation,
    connection: &mut Connection,
    report: &mut Report,
) -> Result<(), StoreError> {
    let row = connection.fetch_first(Statement::new("SELECT sqlite_version()")).await?;
    let version = row.as_ref().map(|row| row.text(0)).transpose()?.unwrap_or_default();
    report.fact("engine", format!("SQLite {version}"));
    let Some(path) = location.path() else { return Ok(()) };
    let io = |error: io::Error| StoreError::Unavailable(format!("{}: {error}", path.display()));
    if is_in_wal_mode(path).map_err(io)? {
        report.fact("journal mode", "wal");
    } else {
        report.fact("journal mode", "another than wal");
        report.problem(
            "the file is not in WAL mode: who reads waits for who writes",
            "start the server, which switches it back; keep other programs from changing it",
        );
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let system = rustix::fs::statfs(folder).map_err(io::Error::from).map_err(io)?;
    let kind = |(number, _): &&(FsWord, &str)| *number == system.f_type;
    if let Some((_, name)) = NETWORK_FILE_SYSTEMS.iter().find(kind) {
        report.problem(
            format!("the file is on a network file system ({name}), where SQLite can lose data"),
            "put it on a disk of this machine, or use postgres or mysql",
        );
    }
    let block = u64::try_from(system.f_bsize).unwrap_or_default();
    let free = system.f_bavail.saturating_mul(block);
    report.fact("size", format!("{} bytes", path.metadata().map_err(io)?.len()));
    report.fact("free on the disk", format!("{free} bytes"));
    if free < LITTLE {
        let what = format!("only {free} bytes are free on the disk; a full one refuses changes");
        report.problem(what, "free space on the file system that holds it");
    }
    let log = location.log().and_then(|log| log.metadata().ok()).map_or(0, |log| log.len());
    if log > LONG_LOG {
        report.problem(
            format!("the write-ahead log has {log} bytes: somebody reads without an end"),
            "end other programs that have the file open, then start the server again",
        );
    }
    Ok(())
}

/// Whether the file's header says that there is a write-ahead log.
///
/// # Source
/// SQLite, Database File Format, 1.3: file format version numbers, at offset 18.
fn is_in_wal_mode(path: &Path) -> io::Result<bool> {
    let mut header = [0; 20];
    File::open(path)?.read_exact(&mut header)?;
    Ok(header[18] == 2)
}
