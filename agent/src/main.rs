//! The `spire-agent` binary.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    spire_agent::cli::main(std::env::args().skip(1))
}
