//! The `spire-agent` binary.

use std::process::ExitCode;

use spire_agent::cli::PROGRAM;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    PROGRAM.main(std::env::args_os().skip(1))
}
