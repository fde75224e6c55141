//! `connections`: an account's connections, by the same calls that workflow nodes make.

mod client;
mod events;
mod login;
mod reason;
mod show;
mod watch;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use self::client::Calls;
use self::show::Printer;
use super::print::print_line;
use crate::config::Config;
use crate::subject::{Account, ConnectionName, Integration, NodeCall};

/// Entries per page of a list call.
const PAGE_SIZE: u32 = 200;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Account whose connections to use, by its public key; default: `cli.account`.
    #[arg(long, global = true, value_name = "ACCOUNT")]
    account: Option<Account>,
    /// Print JSON, one object a line.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the account's connections.
    List {
        /// List only this integration's connections.
        integration: Option<Integration>,
    },
    /// Show a connection and its last five failures. Its token is refreshed first if it expires soon.
    Get {
        #[command(flatten)]
        which: Which,
        /// Seconds that the token must stay valid.
        #[arg(long, value_name = "SECONDS")]
        min_valid: Option<u32>,
        /// Print the access token instead of `[redacted]`.
        #[arg(long)]
        show_token: bool,
    },
    /// Refresh a connection's access token now.
    Refresh {
        #[command(flatten)]
        which: Which,
        /// Print the access token instead of `[redacted]`.
        #[arg(long)]
        show_token: bool,
    },
    /// Revoke a connection at the provider and delete it.
    Delete {
        #[command(flatten)]
        which: Which,
        /// Delete it here only, and leave the grant at the provider alone.
        #[arg(long)]
        keep_grant: bool,
        /// Revoke the grant also if another connection of the same account at the provider shares it.
        #[arg(long, conflicts_with = "keep_grant")]
        even_if_shared: bool,
    },
    /// Follow the account's events: a live table on a terminal, otherwise one line per event.
    Watch {
        /// Show only this integration's connections.
        integration: Option<Integration>,
    },
    /// Print the login URL, and wait until a person has logged in there.
    Login(login::Options),
}

#[derive(Debug, Clone, Args)]
struct Which {
    /// Integration.
    integration: Integration,
    /// Name of the connection.
    connection: ConnectionName,
}

impl Which {
    fn question(&self) -> Map<String, Value> {
        Map::from_iter([
            ("integration_id".to_owned(), json!(self.integration)),
            ("connection_id".to_owned(), json!(self.connection)),
        ])
    }
}

pub(super) async fn run(config: &Config, options: Options) -> anyhow::Result<()> {
    let Options { account, json, command } = options;
    let account = account.or_else(|| config.cli.account.clone());
    let account = account.ok_or_else(|| {
        anyhow::anyhow!("missing account: pass `--account A…`, or set `cli.account` (`TOKENBUS_CLI__ACCOUNT`)")
    })?;
    let nats = super::connect(config).await?;
    let calls = Calls { backend: super::admin::backend(nats.clone(), config), nats, account };
    match command {
        Command::List { integration } => list(&calls, integration.as_ref(), json).await,
        Command::Get { which, min_valid, show_token } => {
            let mut question = which.question();
            question.extend(min_valid.map(|seconds| ("min_valid".to_owned(), json!(seconds))));
            let mut answer = calls.call(NodeCall::Token, question).await;
            // Also after an error: a connection without a valid token has failures above all.
            let failures = last_failures(&calls, &which).await;
            if let Ok(connection) = &mut answer {
                if let (true, Value::Object(connection)) = (json, &mut *connection) {
                    connection.insert("failures".to_owned(), json!(failures));
                }
                Printer { json, show_token }.print(connection)?;
            }
            if !json && !failures.is_empty() {
                print_line(&format!("\n{}", show::failures(&failures)))?;
            }
            answer.map(drop)
        }
        Command::Refresh { which, show_token } => {
            let answer = calls.call(NodeCall::Refresh, which.question()).await?;
            Printer { json, show_token }.print(&answer)
        }
        Command::Delete { which, keep_grant, even_if_shared } => {
            let mut question = which.question();
            if keep_grant || even_if_shared {
                question.insert("revoke".to_owned(), json!(even_if_shared));
            }
            let answer = calls.call(NodeCall::Delete, question).await?;
            let Which { integration, connection } = which;
            let text = if json { answer.to_string() } else { format!("{integration}/{connection} deleted") };
            print_line(&text)
        }
        Command::Watch { integration } => watch::run(&calls, integration.as_ref(), json).await,
        Command::Login(options) => login::run(&calls, options, json).await,
    }
}

/// Returns the last failures of a connection. Workers of an earlier release do not know the call.
async fn last_failures(calls: &Calls, which: &Which) -> Vec<Value> {
    let answer = calls.call(NodeCall::Failures, which.question()).await.unwrap_or_default();
    answer.get("results").and_then(Value::as_array).cloned().unwrap_or_default()
}

async fn list(calls: &Calls, integration: Option<&Integration>, json: bool) -> anyhow::Result<()> {
    let connections = calls.list(integration).await?;
    if !json {
        return print_line(&show::table(&connections));
    }
    for connection in &connections {
        Printer { json, show_token: false }.print(connection)?;
    }
    Ok(())
}
