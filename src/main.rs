//! The `tokenbus` program: arguments and exit code.

use std::process::ExitCode;

use clap::Parser as _;

#[tokio::main]
async fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    tokenbus::failpoint::arm();
    let arguments = tokenbus::cli::Arguments::parse();
    match tokenbus::cli::run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tokenbus: {}", tokenbus::cli::in_full(&error));
            ExitCode::FAILURE
        }
    }
}
