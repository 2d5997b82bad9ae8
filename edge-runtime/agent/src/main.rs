//! The binary; everything is in the library, where tests reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    match ballast_edge::cli::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ballast-edge: {error:#}");
            ExitCode::FAILURE
        }
    }
}
