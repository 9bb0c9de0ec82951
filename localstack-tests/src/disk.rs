//! Disks of a program's own: small ones that fill up, and ones that nobody may write to.

use std::path::Path;
use std::process::Command;

use crate::user::User;

/// A command that runs `program` with a disk of its own at `folder`, made with the `options` of a
/// tmpfs, such as `size=4m`. Only the program sees what is on it, and it is gone when that ends.
///
/// # Errors
/// Names the package that a program is missing from.
pub fn own(program: &Path, folder: &Path, options: &str) -> anyhow::Result<Command> {
    let inner = User::current().command(program)?;
    let script = r#"mount -t tmpfs -o "$1" tmpfs "$2" && shift 2 && exec "$@""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh", options]);
    command.arg(folder).arg(inner.get_program()).args(inner.get_args());
    Ok(command)
}

/// A command that changes the disk at `folder` of the program with this process id.
pub fn change(id: u32, folder: &Path, options: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--mount", "--target", &id.to_string(), "--", "mount", "-o"]);
    command.arg(format!("remount,{options}")).arg(folder);
    command
}
