//! A small disk of a server's own, which can be filled.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

/// Moves the data folder to a disk of the given size that only the program sees, then becomes the
/// program.
const SCRIPT: &str = r#"
mount -t tmpfs -o "size=$1" tmpfs "$2/disk" && cp -a "$2/data" "$2/disk/" &&
mount --bind "$2/disk/data" "$2/data" && shift 2 && exec "$@"
"#;

/// A command that runs `command` with the folder `data` in `folder` on a disk of so many mebibytes,
/// which is gone when the program ends. Only root may.
pub(crate) fn own(command: &Command, folder: &Path, mebibytes: u32) -> Command {
    let mut wrapped = Command::new("unshare");
    wrapped.args(["--mount", "--propagation", "private", "sh", "-c", SCRIPT, "sh"]);
    wrapped.arg(format!("{mebibytes}m")).arg(folder);
    wrapped.arg(command.get_program()).args(command.get_args());
    wrapped
}

/// Takes all that is free on the disk of the process `id`.
pub(crate) fn fill(id: u32, folder: &Path) -> anyhow::Result<()> {
    inside(id, folder, r#"cat /dev/zero >"$1/disk/ballast" 2>/dev/null; [ -s "$1/disk/ballast" ]"#)
}

/// Gives back what [`fill`] took.
pub(crate) fn free(id: u32, folder: &Path) -> anyhow::Result<()> {
    inside(id, folder, r#"rm "$1/disk/ballast""#)
}

fn inside(id: u32, folder: &Path, script: &str) -> anyhow::Result<()> {
    let mut command = Command::new("nsenter");
    command.args(["--mount", "--target", &id.to_string(), "--", "sh", "-c", script, "sh"]);
    let status = command.arg(folder).status().context("cannot start nsenter")?;
    ensure!(status.success(), "the disk of process {id} cannot be changed");
    Ok(())
}
