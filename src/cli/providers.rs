//! `providers`: the built-in profiles and those of `oauth.providers_dir` on this machine.

mod check;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::print::{self, note, plain, print_line};
use crate::config::Config;
use crate::provider::profiles::{Profile, Profiles};
use crate::telemetry::describe_error;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Print JSON, one object a line.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the profiles.
    List {
        /// Show only profiles whose id or name contains the text.
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
    },
    /// Show a profile: where to register an app, common scopes, and the fields that it sets in a config.
    Show { id: String },
    /// Validate a profile's file, and print the requests that an example app sends with it. Requests with a variable
    /// that has neither a default nor a list of values need `--var`.
    Check {
        /// File `<id>.toml`. It may extend a built-in profile, or one of `oauth.providers_dir`.
        file: PathBuf,
        /// Value of a variable, as `<name>=<value>`; repeat for several.
        #[arg(long, value_name = "NAME=VALUE")]
        var: Vec<String>,
    },
}

pub(super) async fn run(config: &Config, options: Options) -> anyhow::Result<()> {
    let Options { json, command } = options;
    let profiles = Profiles::new(&config.oauth);
    match command {
        Command::List { search } => list(profiles, search.as_deref(), json).await,
        Command::Show { id } => {
            let mut profile = profiles.find(&id).await?;
            profile.hide_secrets();
            show(&profile, json)
        }
        Command::Check { file, var } => check::run(profiles, &file, &var, json).await,
    }
}

async fn list(profiles: Profiles<'_>, search: Option<&str>, json: bool) -> anyhow::Result<()> {
    let mut table = print::Table::new();
    table.set_header(["PROVIDER", "NAME", "VERIFIED"]);
    let wanted = search.unwrap_or_default().to_lowercase();
    let is_wanted = |text: &str| text.to_lowercase().contains(&wanted);
    let mut others = 0;
    for id in profiles.ids().await? {
        let profile = match profiles.find(id.as_str()).await {
            Ok(profile) => profile,
            Err(error) if is_wanted(id.as_str()) => {
                note(&describe_error(&error));
                continue;
            }
            Err(_) => {
                others += 1;
                continue;
            }
        };
        if !is_wanted(id.as_str()) && !is_wanted(&profile.name) {
            continue;
        }
        let summary = json!(profile.summary());
        if json {
            print_line(&summary.to_string())?;
        }
        table.add_row(["id", "name", "verified"].map(|field| summary.get(field).map(plain).unwrap_or_default()));
    }
    match (json, table.is_empty()) {
        (true, _) => {}
        (false, true) => print_line("no profile matches")?,
        (false, false) => print_line(&table.render())?,
    }
    if others > 0 {
        note(&format!(
            "other files of `oauth.providers_dir` that cannot be used: {others}; a list without --search says why"
        ));
    }
    Ok(())
}

fn show(profile: &Profile, json: bool) -> anyhow::Result<()> {
    let profile = json!(profile);
    if json {
        return print_line(&profile.to_string());
    }
    print_line(&print::fields(&profile))
}
