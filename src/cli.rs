//! The program's commands.

mod api_keys;
mod configs;
mod connections;
mod dead;
mod doctor;
mod keys;
mod pages;
mod print;
mod serve;
mod setup;
mod sign;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use self::print::say;
use crate::config::{self, Config};
use crate::jetstream::{Nats, Patience};
use crate::{demo, telemetry};

/// OAuth connections on a message bus.
#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = true)]
#[command(
    after_help = "(as …): the NATS user that the command needs; `nats.user`, `nats.creds` or `nats.nkey` sets it."
)]
pub struct Arguments {
    /// Settings file, read over the defaults; the environment (`TOKENBUS_NATS__URL=…`) wins over both.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway, workers, or both.
    Serve(serve::Options),
    /// Declare all streams and buckets, and adjust replicas, ages and direct reads of existing ones (as `worker` or
    /// `admin`).
    Setup(setup::Options),
    /// Make, list and revoke API keys (as `admin`).
    #[command(subcommand)]
    ApiKeys(api_keys::Command),
    /// Make and change the keyring that seals what is stored.
    #[command(subcommand)]
    Keys(keys::Command),
    /// Create, show and delete integrations' configs (as `admin`, with an API key).
    Config(configs::Options),
    /// List, show, refresh, delete and watch an account's connections (as its NATS user, or `admin`).
    Connections(connections::Options),
    /// Look after commands that were given up (as `admin`).
    #[command(subcommand)]
    Dead(dead::Command),
    /// Print the headers of a request that a NATS user signs, for curl.
    Sign(sign::Options),
    /// Check settings, permissions, streams and keys, and say how to mend what is wrong.
    Doctor(doctor::Options),
    /// Print the gateway's OpenAPI document.
    Openapi,
    /// Start everything on this machine and walk one login from end to end.
    Demo(demo::Options),
}

/// Carries the command out.
///
/// # Errors
/// What went wrong, for people.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let loaded = config::load(arguments.config.as_deref());
    if let (Command::Doctor(options), Err(error)) = (&arguments.command, &loaded) {
        return doctor::unreadable_settings(options, error);
    }
    let mut config = loaded.context("settings")?;
    if !matches!(arguments.command, Command::Serve(_)) && config.log.filter.starts_with("info") {
        // What a person asked for is printed; of the rest only what went wrong. Why there is no connection is said
        // at the end.
        "warn,async_nats=off".clone_into(&mut config.log.filter);
        if matches!(arguments.command, Command::Config(_) | Command::Connections(_) | Command::Doctor(_)) {
            // These say by themselves what the server refuses.
            "warn,async_nats=off,tokenbus::jetstream=off".clone_into(&mut config.log.filter);
        }
    }
    telemetry::start(&config.log).context("settings")?;
    match arguments.command {
        Command::Serve(options) => serve::run(config, options).await,
        Command::Setup(options) => setup::run(&config, options).await.map_err(with_advice),
        Command::ApiKeys(command) => api_keys::run(&config, command).await.map_err(with_advice),
        Command::Config(options) => configs::run(&config, options).await,
        Command::Connections(options) => connections::run(&config, options).await,
        Command::Keys(command) => keys::run(&config, command).await.map_err(with_advice),
        Command::Dead(command) => dead::run(&config, command).await.map_err(with_advice),
        Command::Sign(options) => sign::run(&options),
        Command::Doctor(options) => doctor::run(&config, options).await,
        Command::Openapi => say(crate::gateway::OPENAPI),
        Command::Demo(options) => demo::run(options).await,
    }
}

/// Connects once: a person waits for the answer.
async fn connect(config: &Config) -> anyhow::Result<Nats> {
    Nats::connect(&config.nats, "tokenbus cli", Patience::Once).await.map_err(Into::into)
}

/// To whoever is connected, "no answer" is seldom what it says: streams are missing, or the user may not read them.
fn with_advice(error: anyhow::Error) -> anyhow::Error {
    let said = in_full(&error);
    if !said.contains("NATS is away") {
        return error;
    }
    anyhow::anyhow!(
        "{said}; if it is there: has `tokenbus setup` been run, and may this NATS user do that? `tokenbus doctor` looks"
    )
}

/// The error and its causes, each said once: some say their cause themselves.
#[must_use]
pub fn in_full(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |said, cause| match said.as_str() {
        "" => cause,
        earlier if earlier.contains(&cause) => said,
        earlier => format!("{earlier}: {cause}"),
    })
}
