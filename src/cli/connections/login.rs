//! `connections login`: prints the login URL and waits for the outcome.

use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};

use super::client::Calls;
use super::events::{self, Events};
use super::show::Printer;
use super::{Which, reason};
use crate::cli::input::pairs;
use crate::cli::print::{note, print_line};
use crate::event::EventKind;
use crate::subject::NodeCall;

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    which: Which,
    /// Comma-separated scopes, a subset of the config's; default: all of them.
    #[arg(long)]
    scopes: Option<String>,
    /// Value of a variable of the config, as `<name>=<value>`; repeat for several.
    #[arg(long, value_name = "NAME=VALUE")]
    var: Vec<String>,
    /// Parameter of the authorization request that the config's `login_params` list, as `<name>=<value>`; repeat for several.
    #[arg(long, value_name = "NAME=VALUE")]
    param: Vec<String>,
    /// Seconds to wait for the login.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
    /// Print the URL and exit.
    #[arg(long)]
    no_wait: bool,
}

pub(super) async fn run(calls: &Calls, options: Options, json: bool) -> anyhow::Result<()> {
    let Options { which, scopes, var, param, timeout, no_wait } = options;
    let (variables, params) = (pairs(&var).context("--var")?, pairs(&param).context("--param")?);
    let Which { integration, connection: name } = which.clone();
    let (sender, mut events) = events::channel();
    let following = Events::open(calls).await?.forward(calls, sender);
    let mut question = which.question();
    question.extend(scopes.map(|scopes| ("scopes".to_owned(), json!(scopes))));
    for (field, pairs) in [("variables", variables), ("params", params)] {
        if !pairs.is_empty() {
            question.insert(field.to_owned(), json!(pairs));
        }
    }
    let answer = calls.call(NodeCall::Login, question).await?;
    let url = answer.get("oauth_url").and_then(Value::as_str).unwrap_or_default();
    if json {
        print_line(&answer.to_string())?;
    } else {
        print_line(url)?;
    }
    if no_wait {
        return Ok(());
    }
    if !json {
        note("Open this URL in a browser. Waiting for the login …");
    }
    let is_ours = |event: &Value| {
        let is = |field: &str, expected: &str| event.get(field).and_then(Value::as_str) == Some(expected);
        let ends = [EventKind::Connected, EventKind::ExchangeFailed].iter().any(|kind| is("event", kind.as_str()));
        ends && is("integration_id", integration.as_str()) && is("connection_id", name.as_str())
    };
    let ended = async {
        while let Some(event) = events.recv().await {
            if is_ours(&event) {
                return Ok(event);
            }
        }
        bail!("the connection to NATS was closed")
    };
    let ended = tokio::select! {
        ended = tokio::time::timeout(Duration::from_secs(timeout), ended) => ended,
        failed = following => return failed,
        refusal = calls.nats.refusal() => bail!("this NATS user may not read the account's events: {refusal}"),
    };
    let Ok(event) = ended else { bail!("no login within {timeout} seconds") };
    let event = event?;
    if event.get("event").and_then(Value::as_str) != Some(EventKind::Connected.as_str()) {
        let code = event.get("reason").and_then(Value::as_str).unwrap_or("the event has no reason");
        // The event says which setting is wrong, if the provider said so.
        let explained = event
            .get("hint")
            .and_then(Value::as_str)
            .map_or_else(|| reason::explain(code), |hint| format!("{code}: {hint}"));
        bail!("the login failed: {explained}");
    }
    let connection = calls.call(NodeCall::Token, which.question()).await?;
    Printer { json, show_token: false }.print(&connection)
}
