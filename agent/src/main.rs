//! The `spire-agent` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    eprintln!("this build has no agent to run yet: its parts are a library, spire_agent");
    ExitCode::FAILURE
}
