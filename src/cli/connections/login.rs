//! `connections login`: the URL for a person's browser, and what came of it.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use super::client::Calls;
use super::show::Shown;
use super::{Which, reason};
use crate::cli::print::say;
use crate::event::EventKind;
use crate::subject::{ConnectionKey, NodeCall, events_about};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    which: Which,
    /// Scopes, comma-separated: some of the config's; all of them when left out.
    #[arg(long)]
    scopes: Option<String>,
    /// How many seconds to wait for somebody to log in.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
    /// Print the URL and do not wait.
    #[arg(long)]
    no_wait: bool,
}

pub(super) async fn run(calls: &Calls, options: Options, json: bool) -> anyhow::Result<()> {
    let Options { which, scopes, timeout, no_wait } = options;
    let Which { integration, connection: name } = which.clone();
    let key = ConnectionKey { account: calls.account.clone(), integration, name };
    let mut events = calls.subscribe(events_about(&key)).await?;
    let mut question = which.question();
    question.extend(scopes.map(|scopes| ("scopes".to_owned(), json!(scopes))));
    let answer = calls.call(NodeCall::Login, question).await?;
    let url = answer.get("oauth_url").and_then(Value::as_str).unwrap_or_default();
    if json {
        say(&answer.to_string())?;
    } else {
        say(url)?;
    }
    if no_wait {
        return Ok(());
    }
    if !json {
        eprintln!("Open this in a browser; waiting for the login …");
    }
    let ended = async {
        while let Some(message) = events.next().await {
            let Ok(event) = serde_json::from_slice::<Value>(&message.payload) else { continue };
            let kind = event.get("event").and_then(Value::as_str).unwrap_or_default();
            if [EventKind::Connected.as_str(), EventKind::ExchangeFailed.as_str()].contains(&kind) {
                return Ok(event);
            }
        }
        bail!("the connection to NATS ended")
    };
    let ended = tokio::select! {
        ended = tokio::time::timeout(Duration::from_secs(timeout), ended) => ended,
        refusal = calls.nats.refusal() => bail!("this NATS user may not see the account's events: {refusal}"),
    };
    let Ok(event) = ended else { bail!("nobody has logged in within {timeout} seconds") };
    let event = event?;
    if event.get("event").and_then(Value::as_str) != Some(EventKind::Connected.as_str()) {
        let code = event.get("reason").and_then(Value::as_str).unwrap_or("no reason is given");
        bail!("the login failed: {}", reason::explained(code));
    }
    let connection = calls.call(NodeCall::Token, which.question()).await?;
    Shown { json, show_token: false }.connection(&connection)
}
