//! `backup`: writes sealed snapshots of all streams into a folder.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use super::print::{Table, note, print_line};
use super::progress::Progress;
use crate::backup::{self, Kind, Manifest, Plan};
use crate::config::Config;
use crate::protocol::topology::{self, Sizes};
use crate::seal::Keyring;

/// For people, on standard error.
pub(super) const WITHOUT_KEYRING: &str =
    "the keyring is not in the backup: keep a copy of it elsewhere, because without it the backup cannot be opened";

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Folder to create.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Take the last backup before a move: refuse while a worker runs or a command waits. Only such a backup loses
    /// nothing.
    #[arg(long = "final")]
    is_final: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(config: &Config, options: Options) -> anyhow::Result<()> {
    let Options { folder, is_final, json } = options;
    let keyring = Arc::new(Keyring::load(&config.secrets).await.context("a backup is sealed with the keyring")?);
    let nats = super::connect(config).await?;
    super::setup::check_user(config, &nats).await?;
    topology::check_server(&nats).await?;
    let kind = if is_final { Kind::Final } else { Kind::Running };
    let streams: Vec<String> =
        topology::streams(&nats, Sizes::of(config)).into_iter().map(|stream| stream.name).collect();
    let plan = Plan { kind, streams: &streams, folder: &folder };
    let prepared = backup::prepare(&nats, plan).await?;
    // Before the snapshots, so that the event is in them.
    super::setup::record(&nats, Some("backup")).await.context("the audit log cannot be written")?;
    let progress = Progress::new()?;
    let taken = backup::take(&nats, keyring, prepared, &|step| progress.show(step)).await;
    drop(progress);
    let taken = taken?;
    if json {
        print_line(&json!({ "id": taken.id, "kind": taken.kind, "streams": counts(&taken) }).to_string())?;
    } else {
        print_line(&contents(&taken))?;
        print_line(&format!("{}: backup written", folder.display()))?;
    }
    note(WITHOUT_KEYRING);
    Ok(())
}

fn counts(taken: &Manifest) -> serde_json::Value {
    let count = |part: &backup::Part| {
        (part.stream.clone(), json!({ "messages": part.messages, "last_sequence": part.last_sequence }))
    };
    taken.streams.iter().map(count).collect::<serde_json::Map<_, _>>().into()
}

/// A table of what the backup holds.
fn contents(taken: &Manifest) -> String {
    let mut rows = Table::new();
    rows.set_header(["STREAM", "MESSAGES", "LAST SEQUENCE", "BYTES"]);
    for part in &taken.streams {
        let numbers = [part.messages, part.last_sequence, part.bytes].map(|number| number.to_string());
        rows.add_row(std::iter::once(part.stream.clone()).chain(numbers));
    }
    rows.render()
}
