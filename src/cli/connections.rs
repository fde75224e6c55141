//! `connections`: an account's connections, over the calls that nodes make.

mod client;
mod login;
mod reason;
mod show;
mod watch;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use self::client::Calls;
use self::show::Shown;
use super::print::say;
use crate::config::Config;
use crate::subject::{Account, ConnectionName, Integration, NodeCall};

/// Entries of a page.
const PAGE: u32 = 200;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Whose connections: a NATS account's public key; `cli.account` when left out.
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
        /// Only this integration's.
        integration: Option<Integration>,
    },
    /// Show a connection, refreshed first when it ends soon.
    Get {
        #[command(flatten)]
        which: Which,
        /// How many seconds the token must stay valid.
        #[arg(long, value_name = "SECONDS")]
        min_valid: Option<u32>,
        /// Print the access token, too.
        #[arg(long)]
        show_token: bool,
    },
    /// Get a connection a new access token now.
    Refresh {
        #[command(flatten)]
        which: Which,
        /// Print the access token, too.
        #[arg(long)]
        show_token: bool,
    },
    /// Revoke a connection at the provider and delete it.
    Delete {
        #[command(flatten)]
        which: Which,
    },
    /// Show a live view of what expires, is refreshed or fails: a table on a terminal, else a line for each event.
    Watch {
        /// Only this integration's.
        integration: Option<Integration>,
    },
    /// Print the URL to log in at, and wait until somebody has logged in.
    Login(login::Options),
}

/// A connection of the account.
#[derive(Debug, Clone, Args)]
struct Which {
    /// The integration.
    integration: Integration,
    /// The connection's name.
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
        anyhow::anyhow!("whose connections? give `--account A…`, or set `cli.account` (`TOKENBUS_CLI__ACCOUNT`)")
    })?;
    let calls = Calls { nats: super::connect(config).await?, account };
    match command {
        Command::List { integration } => list(&calls, integration.as_ref(), json).await,
        Command::Get { which, min_valid, show_token } => {
            let mut question = which.question();
            question.extend(min_valid.map(|seconds| ("min_valid".to_owned(), json!(seconds))));
            let answer = calls.call(NodeCall::Token, question).await?;
            Shown { json, show_token }.connection(&answer)
        }
        Command::Refresh { which, show_token } => {
            let answer = calls.call(NodeCall::Refresh, which.question()).await?;
            Shown { json, show_token }.connection(&answer)
        }
        Command::Delete { which } => {
            let answer = calls.call(NodeCall::Delete, which.question()).await?;
            let Which { integration, connection } = which;
            let said = if json { answer.to_string() } else { format!("{integration}/{connection} is deleted") };
            say(&said)
        }
        Command::Watch { integration } => watch::run(&calls, integration.as_ref(), json).await,
        Command::Login(options) => login::run(&calls, options, json).await,
    }
}

async fn list(calls: &Calls, integration: Option<&Integration>, json: bool) -> anyhow::Result<()> {
    let connections = calls.list(integration).await?;
    if !json {
        return say(&show::table(&connections));
    }
    for connection in &connections {
        Shown { json, show_token: false }.connection(connection)?;
    }
    Ok(())
}
