//! `keys`: the keyring's file.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Subcommand;

use crate::config::Config;
use crate::seal::Keyring;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a keyring with one key in a new file that only its owner can read.
    Generate {
        /// The file; without it, the one of `secrets.keys_file`.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

pub(super) fn run(config: &Config, command: Command) -> anyhow::Result<()> {
    let Command::Generate { out } = command;
    let path = out.unwrap_or_else(|| config.secrets.keys_file.clone());
    if path.as_os_str().is_empty() {
        bail!("say where: `--out FILE`, or set `secrets.keys_file`");
    }
    let keyring =
        Keyring::generate(&path).context("an existing keyring is never overwritten: what it sealed would be lost")?;
    println!(
        "{}: key {} made; every worker needs this file, nobody else does",
        path.display(),
        keyring.key_ids().next().unwrap_or("?")
    );
    Ok(())
}
