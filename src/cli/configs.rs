//! `config`: integrations' configs, over the calls and commands that the gateway makes. Workers judge the API key.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::pages;
use super::print::{self, say, text, trimmed};
use crate::command::Credential;
use crate::config::Config;
use crate::gateway::backend::{Bus, BusError, Caller, Command as Order, Whoami};
use crate::protocol::replies::Replies;
use crate::secret::Secret;
use crate::subject::{ADMIN_EDGE, Integration};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The API key; `cli.api_key` when left out, which other users of this machine do not see.
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
    /// Create or replace the config that a file holds.
    Put {
        /// The config as JSON; `-` reads standard input.
        file: PathBuf,
    },
    /// Show an integration's config, without secrets.
    Get {
        /// The integration.
        integration: Integration,
    },
    /// List all integrations' configs, without secrets.
    List,
    /// Delete an integration's config. Its connections stay readable, but are no longer refreshed.
    Delete {
        /// The integration.
        integration: Integration,
    },
}

pub(super) async fn run(config: &Config, options: Options) -> anyhow::Result<()> {
    let Options { api_key, json, command } = options;
    let key = one_line(&api_key.map_or_else(|| config.cli.api_key.clone(), Secret::new))?;
    if key.is_empty() {
        bail!("an API key is needed: set `cli.api_key` (`TOKENBUS_CLI__API_KEY`), or give `--api-key`");
    }
    let credential = Credential::new(Secret::new(format!("X-Api-Key {}", key.expose())));
    let caller = Caller { credential: Some(credential), traceparent: None };
    let nats = super::connect(config).await?;
    let refusal = nats.clone();
    let bus = Bus::new(nats, Replies::to(ADMIN_EDGE.to_owned()), config.http.deadline);
    tokio::select! {
        done = carry_out(&bus, &caller, command, json) => done,
        refusal = refusal.refusal() => bail!("this NATS user may not do that, `admin` may: {refusal}"),
        ended = bus.receive() => bail!("answers cannot be received: {}", ended.err().map_or_else(String::new, |it| it.to_string())),
    }
}

/// A key as a header can carry it: files end in a line break, which is no part of the key.
fn one_line(key: &Secret) -> anyhow::Result<Secret> {
    let key = key.expose().trim_end_matches(['\r', '\n']);
    if key.contains(|c: char| !c.is_ascii_graphic()) {
        bail!("the API key holds a space, a line break or another character that no key has");
    }
    Ok(Secret::new(key.to_owned()))
}

async fn carry_out(bus: &Bus, caller: &Caller, command: Command, json: bool) -> anyhow::Result<()> {
    match command {
        Command::Put { file } => {
            let body = read(&file)?;
            let integration = integration_of(body.expose())?;
            let Whoami { account, admin: _, seal_to } = whoami(bus, caller).await?;
            let said = format!("the config of {integration} is in force");
            let body = body.expose().to_owned().into();
            order(bus, caller, Order::Put { integration, account, seal_to, body }).await?;
            print::done(&said, json)
        }
        Command::Delete { integration } => {
            let Whoami { account, admin: _, seal_to } = whoami(bus, caller).await?;
            let said = format!("the config of {integration} is deleted");
            order(bus, caller, Order::Delete { integration, account, seal_to }).await?;
            print::done(&said, json)
        }
        Command::Get { integration } => {
            let config = call(bus, caller, "config", &json!({ "integration_id": integration })).await?;
            show(&[config], json)
        }
        Command::List => show(&list(bus, caller).await?, json),
    }
}

fn read(file: &Path) -> anyhow::Result<Secret> {
    if file != Path::new("-") {
        return std::fs::read_to_string(file).map(Secret::new).with_context(|| file.display().to_string());
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("standard input")?;
    Ok(Secret::new(text))
}

fn integration_of(body: &str) -> anyhow::Result<Integration> {
    #[derive(Deserialize)]
    struct Named {
        integration_id: Integration,
    }
    let Named { integration_id } = serde_json::from_str(body).context("the config")?;
    Ok(integration_id)
}

async fn whoami(bus: &Bus, caller: &Caller) -> anyhow::Result<Whoami> {
    Ok(serde_json::from_value(call(bus, caller, "whoami", &json!({})).await?)?)
}

async fn list(bus: &Bus, caller: &Caller) -> anyhow::Result<Vec<Value>> {
    pages::all(Map::new(), async |question| call(bus, caller, "configs", &Value::Object(question)).await).await
}

async fn call(bus: &Bus, caller: &Caller, name: &'static str, question: &Value) -> anyhow::Result<Value> {
    let answer = bus.call(name, caller, question).await.map_err(for_people)?;
    serde_json::from_slice(&answer).context("the answer is not JSON")
}

async fn order(bus: &Bus, caller: &Caller, order: Order) -> anyhow::Result<()> {
    // Its own subscription to answers, on the same connection, was sent before this.
    tokio::time::timeout(Duration::from_mins(2), bus.command(order, caller)).await?.map(drop).map_err(for_people)
}

fn for_people(error: BusError) -> anyhow::Error {
    match error {
        BusError::Unavailable => {
            anyhow::anyhow!("no worker answers: is one running on this bus, and is the NATS user `admin`?")
        }
        BusError::Refused { .. } | BusError::Deadline => error.into(),
    }
}

fn show(configs: &[Value], json: bool) -> anyhow::Result<()> {
    if json {
        return configs.iter().try_for_each(|config| say(&config.to_string()));
    }
    if configs.is_empty() {
        return say("no configs");
    }
    let mut table = print::table();
    table.set_header(["INTEGRATION", "NAME", "SCOPES"]);
    for config in configs {
        table
            .add_row(["integration_id", "name", "scopes"].map(|field| config.get(field).map(text).unwrap_or_default()));
    }
    say(&trimmed(&table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(given: &str, expected: Option<&str>) {
        let key = one_line(&Secret::new(given.to_owned()));
        assert_eq!(key.as_ref().ok().map(Secret::expose), expected, "{given:?}");
        assert!(key.err().is_none_or(|error| !error.to_string().contains("tb_")), "{given:?}");
    }

    #[test]
    fn a_key_is_one_line_without_the_end_of_its_file() {
        for given in ["tb_a_b", "tb_a_b\n", "tb_a_b\r\n", "tb_a_b\r"] {
            check(given, Some("tb_a_b"));
        }
        for given in ["tb_a\nb", "tb_a\r\nb", "tb_a b", " tb_a_b", "tb_a\0b", "tb_ä_b"] {
            check(given, None);
        }
        check("\n", Some(""));
    }
}
