//! `restore`: makes a store from a backup.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use super::backup::WITHOUT_KEYRING;
use super::print::{Table, note, print_line};
use super::progress::Progress;
use crate::backup::{self, Kind, Manifest, Restored};
use crate::config::Config;
use crate::protocol::topology::{self, Sizes};
use crate::seal::Keyring;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Folder that `tokenbus backup` has written.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(config: &Config, options: Options) -> anyhow::Result<()> {
    let Options { folder, json } = options;
    let keyring = Keyring::load(&config.secrets).await.context("a backup is opened with the keyring")?;
    let backup = backup::open(&folder, &keyring)?;
    let nats = super::connect(config).await?;
    super::setup::check_user(config, &nats).await?;
    topology::check_server(&nats).await?;
    let progress = Progress::new()?;
    let restored = backup::restore(&nats, Sizes::of(config), &backup, &|step| progress.show(step)).await;
    drop(progress);
    let restored = restored?;
    super::setup::record(&nats, Some("restored")).await.context("restored, but the audit log has no event of it")?;
    let checks = checks(backup.manifest());
    if json {
        let count = |it: &Restored| (it.stream.clone(), json!({ "messages": it.messages, "backed_up": it.backed_up }));
        let streams: serde_json::Map<_, _> = restored.iter().map(count).collect();
        let manifest = backup.manifest();
        let done = json!({ "id": manifest.id, "kind": manifest.kind, "streams": streams, "checks": checks });
        return print_line(&done.to_string());
    }
    print_line(&contents(&restored))?;
    print_line("restored; start workers: they are ready after their first repair pass")?;
    for check in checks {
        print_line(&format!("check: {check}"))?;
    }
    note(WITHOUT_KEYRING);
    Ok(())
}

/// Returns what a person has to check after a backup of this kind.
fn checks(manifest: &Manifest) -> Vec<String> {
    if manifest.kind == Kind::Final {
        return Vec::new();
    }
    let taken = manifest.taken.strftime("%Y-%m-%dT%H:%M:%SZ");
    vec![
        format!(
            "workers ran while the backup was taken ({taken}): changes since then are lost, and so are their events"
        ),
        "refresh tokens that were rotated since then are spent: their connections need a new login".to_owned(),
        "API keys that were revoked since then are valid again: revoke them again".to_owned(),
        "connections and configs that were deleted or changed since then are back as they were".to_owned(),
        "logins that were pending then have to begin again, and commands that waited then are gone".to_owned(),
    ]
}

fn contents(restored: &[Restored]) -> String {
    let mut rows = Table::new();
    rows.set_header(["STREAM", "MESSAGES", "IN THE BACKUP"]);
    for Restored { stream, messages, backed_up, is_brought_back } in restored {
        let in_backup = if *is_brought_back { backed_up.to_string() } else { format!("{backed_up}, left out") };
        rows.add_row([stream.clone(), messages.to_string(), in_backup]);
    }
    rows.render()
}
