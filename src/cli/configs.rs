//! `config`: creates, reads and deletes integrations' configs by the gateway's calls and commands. Workers check the API
//! key.

mod dialog;
mod new;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::print::{self, plain, print_line};
use super::{input, pages};
use crate::call::Call;
use crate::command::Credential;
use crate::config::Config;
use crate::gateway::backend::{Backend, BackendError, Command as Order, RequestContext, Whoami};
use crate::integration::read_json;
use crate::protocol::replies::Replies;
use crate::secret::Secret;
use crate::subject::{ADMIN_EDGE, Integration};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// API key. Prefer the setting `cli.api_key`: other users of this machine can see arguments.
    #[arg(long, global = true, value_name = "KEY")]
    api_key: Option<String>,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create or replace a config from a file.
    Put {
        /// File with the config as JSON; `-` reads standard input.
        file: PathBuf,
    },
    /// Create or replace a config from a provider's profile. Asks for what the flags leave out.
    New(Box<new::Options>),
    /// Show an integration's config; with a key that may change configs all settings in use. Secrets are shown as `set`.
    Get { integration: Integration },
    /// List all integrations' configs, without secrets.
    List,
    /// Delete an integration's config. Its connections stay readable but are no longer refreshed.
    Delete { integration: Integration },
}

pub(super) async fn run(config: &Config, options: Options) -> anyhow::Result<()> {
    let Options { api_key, json, command } = options;
    let key = parse_key(&api_key.map_or_else(|| config.cli.api_key.clone(), Secret::new))?;
    if key.is_empty() {
        bail!("missing API key: set `cli.api_key` (`TOKENBUS_CLI__API_KEY`), or pass `--api-key`");
    }
    let credential = Credential::new(Secret::new(format!("X-Api-Key {}", key.expose())));
    let context = RequestContext { credential: Some(credential), ..RequestContext::default() };
    let nats = super::connect(config).await?;
    let refusal = nats.clone();
    let backend = Backend::new(nats, Replies::to(ADMIN_EDGE.to_owned()), config.http.deadline)
        .with_worker_key(config.nats.worker_key.clone());
    tokio::select! {
        done = execute(config, &backend, &context, command, json) => done,
        refusal = refusal.refusal() => bail!("this NATS user lacks a permission that `admin` has: {refusal}"),
        ended = backend.receive() => bail!("cannot receive answers: {}", ended.err().map_or_else(String::new, |error| error.to_string())),
    }
}

/// Removes the line break at the end of a key that was read from a file, and checks that a header can carry the rest.
fn parse_key(key: &Secret) -> anyhow::Result<Secret> {
    let key = key.expose().trim_end_matches(['\r', '\n']);
    if key.contains(|c: char| !c.is_ascii_graphic()) {
        bail!("the API key contains a space, a line break or another character that keys never contain");
    }
    Ok(Secret::new(key.to_owned()))
}

async fn execute(
    config: &Config,
    backend: &Backend,
    context: &RequestContext,
    command: Command,
    json: bool,
) -> anyhow::Result<()> {
    match command {
        Command::Put { file } => {
            let body = input::read(&file)?;
            put(backend, context, &body).await.and_then(|stored| print::print_success(&stored, json))
        }
        Command::New(options) => {
            let profile = profile(backend, context, &options.provider).await?;
            let public_url = config.http.browser_url();
            let ask = move || options.complete(&profile, public_url.as_ref());
            let body = tokio::task::spawn_blocking(ask).await??;
            put(backend, context, &body).await.and_then(|stored| print::print_success(&stored, json))
        }
        Command::Delete { integration } => {
            let Whoami { account, admin: _, seal_to } = whoami(backend, context).await?;
            let said = format!("config of {integration} deleted");
            send_command(backend, context, Order::Delete { integration, account, seal_to }).await?;
            print::print_success(&said, json)
        }
        Command::Get { integration } => {
            let question = json!({ "integration_id": integration, "settings": true });
            let config = call(backend, context, Call::Config, &question).await?;
            match config.get("settings") {
                Some(settings) if !json => print_line(&print::fields(settings)),
                Some(_) => print_configs(&[config], json),
                None => {
                    print::note("A key that may change configs also shows URLs and settings.");
                    print_configs(&[config], json)
                }
            }
        }
        Command::List => print_configs(&list(backend, context).await?, json),
    }
}

/// Sends a config and returns a line for people.
async fn put(backend: &Backend, context: &RequestContext, body: &Secret) -> anyhow::Result<String> {
    let integration = parse_integration(body.expose())?;
    let Whoami { account, admin: _, seal_to } = whoami(backend, context).await?;
    let stored = format!("config of {integration} stored");
    let body = body.expose().to_owned().into();
    send_command(backend, context, Order::Put { integration, account, seal_to, body }).await?;
    Ok(stored)
}

/// The integration is named like its provider, unless the config says otherwise.
fn parse_integration(body: &str) -> anyhow::Result<Integration> {
    let fields = read_json(body.as_bytes())?;
    let given = |name: &str| fields.get(name).filter(|value| !value.is_null());
    let id =
        given("integration_id").map(|id| ("integration_id", id)).or_else(|| Some(("provider", given("provider")?)));
    let (field, id) = id.context("the config has neither `integration_id` nor `provider`")?;
    let id = id.as_str().and_then(|id| Integration::parse(id).ok());
    id.with_context(|| format!("{field} must be a string of 1 to 64 letters, digits, `_` or `-` that begins with a letter or digit, and not with `oauth-`"))
}

async fn profile(backend: &Backend, context: &RequestContext, id: &Integration) -> anyhow::Result<Value> {
    let is_unknown =
        |error: &anyhow::Error| matches!(error.downcast_ref(), Some(BackendError::Refused { status: 404, .. }));
    call(backend, context, Call::Provider, &json!({ "provider": id })).await.map_err(|error| {
        if is_unknown(&error) {
            anyhow::anyhow!("{error}: `tokenbus providers list --search TEXT` finds profiles by id or name")
        } else {
            error
        }
    })
}

async fn whoami(backend: &Backend, context: &RequestContext) -> anyhow::Result<Whoami> {
    Ok(serde_json::from_value(call(backend, context, Call::Whoami, &json!({})).await?)?)
}

async fn list(backend: &Backend, context: &RequestContext) -> anyhow::Result<Vec<Value>> {
    pages::read_all(Map::new(), async |question| call(backend, context, Call::Configs, &Value::Object(question)).await)
        .await
}

async fn call(backend: &Backend, context: &RequestContext, name: Call, question: &Value) -> anyhow::Result<Value> {
    let answer = backend.call(name, context, question).await.map_err(with_hint)?;
    serde_json::from_slice(&answer).context("the answer is not JSON")
}

async fn send_command(backend: &Backend, context: &RequestContext, order: Order) -> anyhow::Result<()> {
    // The subscription to answers was sent earlier on the same connection, so the answer cannot be missed.
    tokio::time::timeout(Duration::from_mins(2), backend.command(order, context)).await?.map(drop).map_err(with_hint)
}

fn with_hint(error: BackendError) -> anyhow::Error {
    match error {
        BackendError::NoWorker(_) | BackendError::Unavailable(_) | BackendError::Disconnected => {
            anyhow::anyhow!("no worker answers: start one on this bus, and connect as the NATS user `admin`")
        }
        BackendError::Refused { .. }
        | BackendError::UsedState
        | BackendError::NoCredential
        | BackendError::NotText(_)
        | BackendError::Occupied
        | BackendError::Seal(_)
        | BackendError::InvalidAnswer(_)
        | BackendError::Session(_)
        | BackendError::Throttled
        | BackendError::Deadline => error.into(),
    }
}

fn print_configs(configs: &[Value], json: bool) -> anyhow::Result<()> {
    if json {
        return configs.iter().try_for_each(|config| print_line(&config.to_string()));
    }
    if configs.is_empty() {
        return print_line("no configs");
    }
    let mut table = print::Table::new();
    table.set_header(["INTEGRATION", "NAME", "SCOPES"]);
    for config in configs {
        table.add_row(
            ["integration_id", "name", "scopes"].map(|field| config.get(field).map(plain).unwrap_or_default()),
        );
    }
    print_line(&table.render())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(given: &str, expected: Option<&str>) {
        let key = parse_key(&Secret::new(given.to_owned()));
        assert_eq!(key.as_ref().ok().map(Secret::expose), expected, "{given:?}");
        assert!(key.err().is_none_or(|error| !error.to_string().contains("tb_")), "{given:?}");
    }

    #[test]
    fn a_key_is_one_line_without_the_line_break_at_its_end() {
        for given in ["tb_a_b", "tb_a_b\n", "tb_a_b\r\n", "tb_a_b\r"] {
            check(given, Some("tb_a_b"));
        }
        for given in ["tb_a\nb", "tb_a\r\nb", "tb_a b", " tb_a_b", "tb_a\0b", "tb_ä_b"] {
            check(given, None);
        }
        check("\n", Some(""));
    }
}
