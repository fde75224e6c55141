//! `keys rotate`: everything stored is sealed with the first key.

use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::cli::print::say;
use crate::config::Config;
use crate::seal::Keyring;
use crate::store::{self, Rotated, Step, Store};

/// Hidden by itself where standard error is no terminal.
const BAR: &str = "{prefix:22} {wide_bar} {pos}/{len} {per_sec} {eta}";
/// In its place while there is nothing to count.
const WAITING: &str = "{wide_msg} {elapsed}";

pub(super) async fn run(config: &Config, json: bool) -> anyhow::Result<()> {
    let keyring = Keyring::load(&config.secrets).await?;
    let store = Store::new(crate::cli::connect(config).await?, Arc::new(keyring));
    let (counting, waiting) = (ProgressStyle::with_template(BAR)?, ProgressStyle::with_template(WAITING)?);
    let bar = ProgressBar::new(0);
    let tell = |step: Step<'_>| match step {
        Step::Begins(stream, messages) => {
            bar.reset();
            bar.set_style(counting.clone());
            bar.set_length(messages);
            bar.set_prefix(stream.to_owned());
            bar.set_message("");
        }
        Step::Done => bar.inc(1),
        Step::Waits(what) => {
            let said = format!("waiting for {what}");
            // Without a bar, once.
            if bar.is_hidden() && bar.message() != said {
                eprintln!("{said}");
            }
            if bar.message() != said {
                bar.reset();
                bar.set_style(waiting.clone());
            }
            bar.set_message(said);
        }
    };
    let rotated = store::rotate(&store, &tell).await;
    bar.finish_and_clear();
    let rotated = rotated?;
    let (used, _) = store.keys_in_use().await?;
    let spare: Vec<String> = store::spare(&store.keyring.key_ids(), &used).into_iter().collect();
    let Rotated { sealing, resealed, caught_up, retired } = rotated;
    if json {
        let done = json!({ "sealing": sealing, "resealed": resealed, "caught_up": caught_up, "retired": retired, "spare": spare });
        return say(&done.to_string());
    }
    if retired.is_empty() && resealed == 0 {
        say(&format!("nothing to do: all that is stored is sealed with key {sealing}"))?;
    } else {
        say(&format!("{resealed} entries sealed anew with key {sealing}"))?;
    }
    if !spare.is_empty() {
        say(&format!("may be taken out of the keyring: {}", spare.join(", ")))?;
    }
    Ok(())
}
