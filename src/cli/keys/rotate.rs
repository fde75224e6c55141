//! `keys rotate`: re-seals all stored values with the first key, with a progress bar.

use std::sync::Arc;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::cli::print::{note, print_line};
use crate::config::Config;
use crate::event::{Event, EventKind};
use crate::jetstream::{Nats, NatsError};
use crate::protocol::events::publish_event;
use crate::protocol::permissions;
use crate::seal::Keyring;
use crate::store::{self, Rotated, Step, Store};
use crate::system;

/// Shown while entries are counted. Hidden if standard error is not a terminal.
const BAR: &str = "{prefix:22} {wide_bar} {pos}/{len} {per_sec} {eta}";
/// Shown while waiting for workers, when there is nothing to count.
const WAITING: &str = "{wide_msg} {elapsed}";

pub(super) async fn run(config: &Config, json: bool) -> anyhow::Result<()> {
    let keyring = Keyring::load(&config.secrets).await?;
    let nats = crate::cli::connect(config).await?;
    let store = Store::new(nats.clone(), Arc::new(keyring));
    let (counting, waiting) = (ProgressStyle::with_template(BAR)?, ProgressStyle::with_template(WAITING)?);
    let bar = ProgressBar::new(0);
    let show = |step: Step<'_>| match step {
        Step::Begins(stream, messages) => {
            bar.reset();
            bar.set_style(counting.clone());
            bar.set_length(messages);
            bar.set_prefix(stream.to_owned());
            bar.set_message("");
        }
        Step::Done => bar.inc(1),
        Step::Waits(what) => {
            let text = format!("waiting for {what}");
            // A hidden bar shows nothing, so the reason is printed once.
            if bar.is_hidden() && bar.message() != text {
                note(&text);
            }
            if bar.message() != text {
                bar.reset();
                bar.set_style(waiting.clone());
            }
            bar.set_message(text);
        }
    };
    let rotated = store::rotate(&store, &show).await;
    bar.finish_and_clear();
    let rotated = rotated?;
    record(&nats, &rotated).await.context("the values are sealed again, but the audit log has no event of it")?;
    let used = store.keys_in_use().await?;
    let spare: Vec<String> = store::unused_keys(&store.keyring.key_ids(), &used).into_iter().collect();
    let Rotated { sealing, resealed, caught_up, retired } = rotated;
    if json {
        let done = json!({ "sealing": sealing, "resealed": resealed, "caught_up": caught_up, "retired": retired, "spare": spare });
        return print_line(&done.to_string());
    }
    if retired.is_empty() && resealed == 0 {
        print_line(&format!("nothing to do: all stored values are sealed with key {sealing}"))?;
    } else {
        print_line(&format!("{resealed} entries re-sealed with key {sealing}"))?;
    }
    if !spare.is_empty() {
        print_line(&format!("no longer used, may be removed from the keyring: {}", spare.join(", ")))?;
    }
    Ok(())
}

/// Stores in the audit log which NATS user rotated the keys, and what changed.
async fn record(nats: &Nats, rotated: &Rotated) -> Result<(), NatsError> {
    let user = permissions::own_user(nats).await?.map_or_else(|| "unknown".to_owned(), |own| own.user);
    let actor = format!("rotate:{user}");
    let mut event = Event::about_store(EventKind::KeysRotated, &actor, system::now());
    (event.reason, event.count) = (Some(rotated.sealing.as_str()), Some(rotated.resealed));
    publish_event(nats, &event, None).await
}
