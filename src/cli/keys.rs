//! `keys`: the keyring's file, and what is sealed with its keys.

mod rotate;

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::json;

use super::print::say;
use crate::config::Config;
use crate::seal;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a keyring with one key in a new file that only its owner can read.
    Generate {
        /// The file; `secrets.keys_file` when left out.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Add a new key to a keyring's file, behind the others: it seals nothing until it is promoted.
    Add {
        #[command(flatten)]
        file: Keys,
    },
    /// Move a key to the front of a keyring's file: it seals from then on. All workers must have the key by then.
    Promote {
        /// The key's id.
        id: String,
        #[command(flatten)]
        file: Keys,
    },
    /// Seal everything that is stored anew, with the first key of the keyring, while workers run (as `worker`).
    Rotate {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct Keys {
    /// The file; `secrets.keys_file` when left out.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(config: &Config, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Generate { out, json } => {
            let path = path(config, out, "--out")?;
            let id = seal::generate(&path)
                .context("an existing keyring is never overwritten: what it sealed would be lost")?;
            if json {
                say(&json!({ "id": id }).to_string())?;
            } else {
                say(&format!("{}: key {id} made; every worker needs this file, nobody else does", path.display()))?;
            }
        }
        Command::Add { file: Keys { file, json } } => {
            let path = path(config, file, "--file")?;
            let id = seal::add(&path)?;
            if json {
                say(&json!({ "id": id }).to_string())?;
            } else {
                say(&format!("{}: key {id} added", path.display()))?;
                say(&format!("give the file to all workers, then: tokenbus keys promote {id}"))?;
            }
        }
        Command::Promote { id, file: Keys { file, json } } => {
            let path = path(config, file, "--file")?;
            let changed = seal::promote(&path, &id)?;
            if json {
                say(&json!({ "id": id, "changed": changed }).to_string())?;
            } else {
                say(&format!("{}: key {id} seals", path.display()))?;
                say("give the file to all workers, then: tokenbus keys rotate")?;
            }
        }
        Command::Rotate { json } => rotate::run(config, json).await?,
    }
    Ok(())
}

fn path(config: &Config, named: Option<PathBuf>, option: &str) -> anyhow::Result<PathBuf> {
    let path = named.unwrap_or_else(|| config.secrets.keys_file.clone());
    if path.as_os_str().is_empty() {
        bail!("which file? give `{option} FILE`, or set `secrets.keys_file`");
    }
    Ok(path)
}
