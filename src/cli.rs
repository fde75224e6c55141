//! The program's commands.

mod admin;
mod api_keys;
mod backup;
mod configs;
mod connections;
mod dead;
mod descriptors;
mod doctor;
mod events;
mod health;
mod input;
mod keys;
mod pages;
mod print;
mod progress;
mod providers;
mod restore;
mod serve;
mod setup;
mod sign;

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use self::print::print_line;
use crate::config::{self, Config, Log, LogFormat};
use crate::foreign_text::escape_lines;
use crate::jetstream::{Nats, Patience, Unavailable};
use crate::{demo, shutdown, telemetry};

/// Longest wait for a reader of the error that ends the program.
const REPORT: Duration = Duration::from_secs(1);

/// OAuth connections on a message bus.
#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = true)]
#[command(
    after_help = "(as …) names the NATS user that the command needs; set it by `nats.user`, `nats.creds` or `nats.nkey`."
)]
pub struct Arguments {
    /// Settings file. Overrides the defaults, and the environment (`TOKENBUS_NATS__URL=…`) overrides both.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway, a worker, or both.
    Serve(serve::Options),
    /// Create missing streams and buckets, and adjust replicas, ages and direct reads of existing ones (as `setup`).
    Setup(setup::Options),
    /// Write sealed snapshots of all streams into a folder, with the workers' keyring (as `setup`).
    Backup(backup::Options),
    /// Make a store from a backup, on a server or cluster without streams, in the shape of the settings (as `setup`).
    Restore(restore::Options),
    /// Create, list and revoke API keys (as `admin`).
    #[command(subcommand)]
    ApiKeys(api_keys::Command),
    /// Create and change the keyring that seals stored secrets.
    #[command(subcommand)]
    Keys(keys::Command),
    /// Create, show and delete integrations' configs (as `admin`, with an API key).
    Config(configs::Options),
    /// List, show and check the profiles of providers on this machine.
    Providers(providers::Options),
    /// List, show, refresh, delete and watch an account's connections (as its NATS user, or `admin`).
    Connections(connections::Options),
    /// List dead letters, advise on them, and drop them (as `admin`).
    #[command(subcommand)]
    Dead(dead::Command),
    /// Export the audit log (as `admin`).
    #[command(subcommand)]
    Events(events::Command),
    /// Sign an HTTP request as a NATS user, and print its headers for curl.
    Sign(sign::Options),
    /// Ask the process on this machine whether it is alive or ready, and exit with 0 or 1; for probes of containers.
    Health(health::Options),
    /// Check settings, permissions, streams and keys, and print how to fix what is wrong.
    Doctor(doctor::Options),
    /// Print the gateway's OpenAPI document.
    Openapi,
    /// Start everything on this machine and run one login from end to end.
    Demo(demo::Options),
}

/// Runs the command. It ends early, without an error, if nothing reads its output any longer.
///
/// # Errors
/// The error's chain is meant for people; [`report`] prints it.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    match Box::pin(execute(arguments)).await {
        Err(error) if print::is_output_closed(&error) => Ok(()),
        done => done,
    }
}

async fn execute(arguments: Arguments) -> anyhow::Result<()> {
    let is_service = matches!(arguments.command, Command::Serve(_));
    if is_service {
        shutdown::survive_hangup().context("cannot listen for signals")?;
    }
    let file = arguments.config.as_deref();
    let loaded = config::load(file);
    if let (Command::Doctor(options), Err(error)) = (&arguments.command, &loaded) {
        return doctor::report_unreadable_settings(options, error);
    }
    let refuse = |error| {
        let is_json = is_service && config::log_format(file) == LogFormat::Json;
        if is_json { log_unreadable(error) } else { error }
    };
    let mut config = loaded.context("settings").map_err(refuse)?;
    if !is_service && config.log.filter.starts_with("info") {
        // A person sees the command's output, so the log shows only warnings. A failed connection is the command's
        // error, so the client library's own lines would repeat it.
        "warn,async_nats=off".clone_into(&mut config.log.filter);
        if !matches!(arguments.command, Command::Setup(_) | Command::Keys(_)) {
            // These commands print what the server refuses.
            "warn,async_nats=off,tokenbus::jetstream=off".clone_into(&mut config.log.filter);
        }
    }
    let started = telemetry::start(&config.log, is_service.then_some(&config.traces)).context("settings");
    let (logging, _flush) = started.map_err(refuse)?;
    match arguments.command {
        Command::Serve(options) => {
            telemetry::log_panics();
            let format = config.log.format;
            let running = serve::Running { logging, settings: arguments.config };
            let done = Box::pin(serve::run(config, options, running)).await;
            if format == LogFormat::Json { done.map_err(log) } else { done }
        }
        Command::Setup(options) => {
            let advice = if options.is_rebuild() { REPEAT } else { SET_UP };
            setup::run(&config, options).await.map_err(with_advice(advice))
        }
        Command::Backup(options) => backup::run(&config, options).await.map_err(with_advice(REPEAT)),
        Command::Restore(options) => restore::run(&config, options).await.map_err(with_advice(REPEAT)),
        Command::ApiKeys(command) => api_keys::run(&config, command).await,
        Command::Config(options) => configs::run(&config, options).await,
        Command::Providers(options) => providers::run(&config, options).await,
        Command::Connections(options) => connections::run(&config, options).await,
        Command::Keys(command) => keys::run(&config, command).await.map_err(with_advice(SET_UP)),
        Command::Dead(command) => dead::run(&config, command).await,
        Command::Events(command) => events::run(&config, command).await,
        Command::Sign(options) => sign::run(&options),
        Command::Doctor(options) => doctor::run(&config, options).await,
        Command::Health(options) => health::run(&config, options).await,
        Command::Openapi => print_line(crate::gateway::OPENAPI),
        Command::Demo(options) => demo::run(options).await,
    }
}

/// Marks an error that is a line of the log, and is not printed again.
#[derive(Debug, thiserror::Error)]
#[error("see the log")]
struct Logged;

/// Logs an error that ends the process.
fn log(error: anyhow::Error) -> anyhow::Error {
    tracing::error!("{}", describe_error(&error));
    error.context(Logged)
}

/// Logs an error in the settings as JSON, with the default filter.
fn log_unreadable(error: anyhow::Error) -> anyhow::Error {
    match telemetry::start(&Log { filter: "info".to_owned(), format: LogFormat::Json }, None) {
        Ok((_logging, _flush)) => log(error),
        Err(_started) => error,
    }
}

/// Prints the error that ends the program, unless the log has it. If standard error is not read, the program ends without it:
/// otherwise its supervisor could not start it again.
pub fn report(error: &anyhow::Error) {
    if error.is::<Logged>() {
        return;
    }
    let line = format!("tokenbus: {}", escape_lines(&describe_error(error)));
    let (done, printed) = mpsc::sync_channel(1);
    thread::spawn(move || {
        // A closed pipe is no reason for a panic.
        let _ = writeln!(std::io::stderr(), "{line}");
        done.send(())
    });
    // An error means that the time is over.
    let _ = printed.recv_timeout(REPORT);
}

/// Connects without retries, because a person waits for the result.
async fn connect(config: &Config) -> anyhow::Result<Nats> {
    Nats::connect(&config.nats, "tokenbus cli", Patience::Once).await.map_err(Into::into)
}

/// While connected, the cause is seldom the network: usually a stream is missing, or the user lacks a permission.
const SET_UP: &str = "no answer from NATS; if the server is up, run `tokenbus setup`, and `tokenbus doctor` to check what this \
                      NATS user may do";
/// For commands that have checked permissions, and may end after a part of their work.
const REPEAT: &str = "no answer from NATS; when the server is up, run the same command again";

/// Adds advice to a request without an answer. For `map_err`.
fn with_advice(advice: &'static str) -> impl FnOnce(anyhow::Error) -> anyhow::Error {
    // A transparent error hides the `NatsError`, but not its source.
    move |error| {
        if error.chain().any(<dyn std::error::Error>::is::<Unavailable>) { error.context(advice) } else { error }
    }
}

/// Joins an error and its causes for a person.
#[must_use]
pub(crate) fn describe_error(error: &anyhow::Error) -> String {
    telemetry::describe_error(error.as_ref())
}
