//! `events`: exports the audit log, one JSON object a line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::admin::Admin;
use super::print::{note, print_line};
use crate::call::AdminCall;
use crate::config::Config;
use crate::subject::Account;

/// Events in one answer: the most that a worker returns.
pub(super) const PAGE: u64 = 1_000;
/// Pause before the next question when there is nothing new, or no answer.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print events as JSON, one a line, oldest first. Each has its number; an export that continues after the last number
    /// misses none and repeats none.
    Export(Export),
}

#[derive(Debug, Args)]
pub(super) struct Export {
    /// Begin after the event with this number.
    #[arg(long, value_name = "NUMBER", conflicts_with = "state")]
    after: Option<u64>,
    /// File with the number of the last exported event. The export begins after it, and updates the file after each page that
    /// it has printed; an interrupted export may repeat the last page.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Only events of this account.
    #[arg(long)]
    account: Option<Account>,
    /// Continue with new events until interrupted.
    #[arg(long)]
    follow: bool,
}

/// The answer of the call `events`.
#[derive(Deserialize)]
pub(super) struct Page {
    pub(super) results: Vec<Numbered>,
    pub(super) last: u64,
}

#[derive(Deserialize)]
pub(super) struct Numbered {
    number: u64,
    pub(super) event: Map<String, Value>,
}

pub(super) async fn run(config: &Config, command: Command) -> anyhow::Result<()> {
    let Command::Export(options) = command;
    let mut after = match &options.state {
        Some(file) => read_state(file)?,
        None => options.after.unwrap_or(0),
    };
    let admin = Admin::connect(config).await?;
    let (mut exported, mut has_answered) = (0, false);
    loop {
        let page = match ask(&admin, &options, after).await {
            Ok(page) => page,
            // Workers restart.
            Err(error) if options.follow && has_answered => {
                note(&format!("{error:#}; asking again"));
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        has_answered = true;
        if page.last != after {
            report_gap(&options, after, &page);
            exported += print(&page)?;
            after = page.last;
            options.state.as_deref().map_or(Ok(()), |file| write_state(file, after))?;
        } else if options.follow {
            tokio::time::sleep(PAUSE).await;
        } else {
            note(&format!("exported {exported} events, up to number {after}"));
            return Ok(());
        }
    }
}

async fn ask(admin: &Admin, options: &Export, after: u64) -> anyhow::Result<Page> {
    let mut question = Map::from_iter([("after".to_owned(), json!(after)), ("limit".to_owned(), json!(PAGE))]);
    if let Some(account) = &options.account {
        question.insert("account".to_owned(), json!(account));
    }
    serde_json::from_value(admin.call(AdminCall::Events, question).await?).context("cannot read the answer")
}

/// Reports events that the server deleted before they were exported. Without a filter the numbers have no gaps.
fn report_gap(options: &Export, after: u64, page: &Page) {
    let first = page.results.first().map_or(page.last, |first| first.number);
    if after > 0 && options.account.is_none() && first > after + 1 {
        note(&format!(
            "events {} to {} are no longer stored; export more often, or raise `events.max_age`",
            after + 1,
            first - 1
        ));
    }
}

/// Prints the events with their numbers. Returns how many there are.
fn print(page: &Page) -> anyhow::Result<usize> {
    for Numbered { number, event } in &page.results {
        let mut line = event.clone();
        line.insert("number".to_owned(), json!(number));
        print_line(&Value::Object(line).to_string())?;
    }
    Ok(page.results.len())
}

/// Returns 0 if there is no file yet.
fn read_state(file: &Path) -> anyhow::Result<u64> {
    match std::fs::read_to_string(file) {
        Ok(text) => text.trim().parse().with_context(|| format!("{} holds no number of an event", file.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

/// Replaces the file as a whole, so that a crash leaves the old number or the new one.
fn write_state(file: &Path, number: u64) -> anyhow::Result<()> {
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let written = std::fs::write(&new, format!("{number}\n")).and_then(|()| std::fs::rename(&new, file));
    written.with_context(|| format!("cannot write {}", file.display()))
}
