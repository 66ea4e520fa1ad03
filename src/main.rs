//! Hands the command line over.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A letter is many small pieces; the C library's allocator took a fifth of the time that a letter takes.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    postroom::cli::run()
}
