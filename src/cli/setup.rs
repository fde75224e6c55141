//! `setup`: streams and buckets.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;
use tracing::{info, warn};

use super::print::note;
use super::progress::Progress;
use crate::backup;
use crate::config::Config;
use crate::event::{Event, EventKind};
use crate::jetstream::{Nats, NatsError};
use crate::protocol::ask_workers::any_worker_runs;
use crate::protocol::events::publish_event;
use crate::protocol::permissions::PermissionError;
use crate::protocol::topology::{self, FirstSequence, Sizes};
use crate::protocol::{form, origin, permissions};
use crate::seal::Keyring;
use crate::store::{Migrated, Store};
use crate::subject::permission;
use crate::system;

/// Most missing permissions that are listed. A user that lacks more is another role's.
const MAX_LISTED: usize = 10;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Continue the stream `OAUTH` at this sequence, after it was restored alone or created again. The error of the refused
    /// start names the sequence.
    #[arg(long, value_name = "SEQUENCE", value_parser = clap::value_parser!(u64).range(2..))]
    first_seq: Option<u64>,
    /// Drop the records that `OAUTH` still holds, which `--first-seq` needs. Buckets are not touched; a record that is
    /// newer than its bucket entry is lost.
    #[arg(long, requires = "first_seq")]
    drop_records: bool,
    /// Create queues and events again if the settings ask for another persistence than they have. Stop all gateways and workers
    /// first. DIR (`tokenbus-rebuild` if it is left out) holds a backup of these streams until they are restored; if the command
    /// breaks off, run it again with the same DIR.
    #[arg(long, value_name = "DIR", num_args = 0..=1, default_missing_value = "tokenbus-rebuild", conflicts_with = "first_seq")]
    rebuild: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Options {
    pub(super) fn is_rebuild(&self) -> bool {
        self.rebuild.is_some()
    }
}

/// Checks that the NATS user has the permissions of `setup`. Another role's user lacks most of them: a list of what is missing
/// would advise to let that user read every token.
pub(super) async fn check_user(config: &Config, nats: &Nats) -> anyhow::Result<()> {
    match permissions::check(nats, permission::needed_by_setup(&config.nats.inbox_prefix())).await {
        Err(PermissionError::Missing { user, account, missing }) if missing.len() > MAX_LISTED => bail!(
            "NATS user `{user}` of account `{account}` lacks {} permissions: run this command as NATS user `setup`; if it is that \
             user, give it the permissions of `setup` in nats/accounts.conf",
            missing.len()
        ),
        checked => Ok(checked?),
    }
}

/// Seals the values of an older store as a whole. The form is stored last, so that a migration that was cut off is repeated.
async fn migrate(config: &Config, nats: Nats) -> anyhow::Result<()> {
    if any_worker_runs(&nats).await? {
        bail!("a worker runs; stop all workers and gateways, then run `tokenbus setup` again");
    }
    let keyring = Keyring::load(&config.secrets).await.context("stored values of an older form need the keyring")?;
    let store = Store::new(nats.clone(), Arc::new(keyring));
    store.claim_keys().await?;
    let Migrated { sealed, unreadable } = store.migrate(config.limits.tombstones).await?;
    form::set(&nats).await?;
    info!("sealed {sealed} stored values as a whole");
    if !unreadable.is_empty() {
        warn!("left {} entries that cannot be read: {}", unreadable.len(), unreadable.join(", "));
    }
    Ok(())
}

pub(super) async fn run(config: &Config, options: Options) -> anyhow::Result<()> {
    let Options { first_seq, drop_records, rebuild, json } = options;
    config.events.check()?;
    let first = first_seq.map(|sequence| FirstSequence { sequence, drop_records });
    let nats = super::connect(config).await?;
    let sizes = Sizes::of(config);
    let rebuilt = match rebuild {
        Some(folder) => rebuild_streams(config, &nats, sizes, &folder).await?,
        None => Vec::new(),
    };
    if topology::set_up(&nats, sizes, first).await? {
        migrate(config, nats.clone()).await?;
    }
    origin::confirm(&nats).await.context("streams and buckets are set up, but not confirmed")?;
    let reason = first.map(|first| if first.drop_records { "records_dropped" } else { "first_seq" });
    let reason = reason.or((!rebuilt.is_empty()).then_some("rebuilt"));
    record(&nats, reason).await.context("streams and buckets are set up, but the audit log has no event of it")?;
    super::print::print_success("all streams and buckets are set up", json)
}

/// Creates streams again that have another shape than the settings ask for. Returns their names.
async fn rebuild_streams(config: &Config, nats: &Nats, sizes: Sizes, folder: &Path) -> anyhow::Result<Vec<String>> {
    let keyring =
        Keyring::load(&config.secrets).await.context("the backup of the streams is sealed with the keyring")?;
    let progress = Progress::new()?;
    let rebuilt = backup::rebuild(nats, Arc::new(keyring), sizes, folder, &|step| progress.show(step)).await;
    drop(progress);
    let rebuilt = rebuilt?;
    match rebuilt.as_slice() {
        [] => note("all streams have the shape of the settings"),
        streams => note(&format!("created again, with all messages and consumers: {}", streams.join(", "))),
    }
    Ok(rebuilt)
}

/// Stores in the audit log which NATS user ran `setup`, and what beside streams and buckets it changed.
pub(super) async fn record(nats: &Nats, reason: Option<&str>) -> Result<(), NatsError> {
    let user = permissions::own_user(nats).await?.map_or_else(|| "unknown".to_owned(), |own| own.user);
    let actor = format!("setup:{user}");
    let mut event = Event::about_store(EventKind::StoreSetUp, &actor, system::now());
    event.reason = reason;
    publish_event(nats, &event, None).await
}
