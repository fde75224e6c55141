//! The `tokenbus` program: arguments and exit code.

use std::process::ExitCode;

use clap::Parser as _;

#[tokio::main]
async fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    tokenbus::arm();
    let arguments = tokenbus::Arguments::parse();
    match Box::pin(tokenbus::run(arguments)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tokenbus::report(&error);
            ExitCode::FAILURE
        }
    }
}
