//! `keys`: creates and changes the keyring's file, and re-seals stored values.

mod rotate;

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::json;

use super::print::print_line;
use crate::config::Config;
use crate::seal;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a keyring with one key, in a new file that only its owner can read.
    Generate {
        /// File to create; default: `secrets.keys_file`.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Append a new key to a keyring's file. It seals nothing until it is promoted.
    Add {
        #[command(flatten)]
        file: Keys,
    },
    /// Move a key to the front of a keyring's file, so that it seals. First make sure that all workers have the key.
    Promote {
        /// Id of the key.
        id: String,
        #[command(flatten)]
        file: Keys,
    },
    /// Re-seal all stored values with the first key of the keyring, while workers run (as `worker`).
    Rotate {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct Keys {
    /// Keyring file; default: `secrets.keys_file`.
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
                .context("an existing keyring is never overwritten, because values sealed with it would be lost")?;
            if json {
                print_line(&json!({ "id": id }).to_string())?;
            } else {
                print_line(&format!(
                    "{}: key {id} created; every worker needs this file, and only workers do",
                    path.display()
                ))?;
            }
        }
        Command::Add { file: Keys { file, json } } => {
            let path = path(config, file, "--file")?;
            let id = seal::add(&path)?;
            if json {
                print_line(&json!({ "id": id }).to_string())?;
            } else {
                print_line(&format!("{}: key {id} added", path.display()))?;
                print_line(&format!("copy the file to all workers, then run: tokenbus keys promote {id}"))?;
            }
        }
        Command::Promote { id, file: Keys { file, json } } => {
            let path = path(config, file, "--file")?;
            let changed = seal::promote(&path, &id)?;
            if json {
                print_line(&json!({ "id": id, "changed": changed }).to_string())?;
            } else {
                print_line(&format!("{}: key {id} seals from now on", path.display()))?;
                print_line("copy the file to all workers, then run: tokenbus keys rotate")?;
            }
        }
        Command::Rotate { json } => rotate::run(config, json).await?,
    }
    Ok(())
}

fn path(config: &Config, named: Option<PathBuf>, option: &str) -> anyhow::Result<PathBuf> {
    let path = named.unwrap_or_else(|| config.secrets.keys_file.clone());
    if path.as_os_str().is_empty() {
        bail!("missing keyring file: pass `{option} FILE`, or set `secrets.keys_file`");
    }
    Ok(path)
}
