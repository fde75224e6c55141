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
            eprintln!("tokenbus: {}", in_full(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes, each said once: some say their cause themselves.
fn in_full(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |said, cause| match said.as_str() {
        "" => cause,
        earlier if earlier.contains(&cause) => said,
        earlier => format!("{earlier}: {cause}"),
    })
}
