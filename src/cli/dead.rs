//! `dead`: dead letters, the commands that workers gave up.

use anyhow::{Context as _, bail};
use clap::Subcommand;
use serde_json::{Map, Value, json};

use super::admin::Admin;
use super::print::{self, print_line};
use crate::call::AdminCall;
use crate::config::Config;
use crate::protocol::commands::NumberedLetter;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the dead letters.
    List {
        /// Print JSON, one object a line.
        #[arg(long)]
        json: bool,
    },
    /// Send the refresh of a connection again. Print who has to act for another command: its sealed content is not stored.
    Retry {
        /// Number of the letter, as in the list.
        number: u64,
    },
    /// Drop a dead letter.
    Drop {
        /// Number of the letter, as in the list.
        number: u64,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(config: &Config, command: Command) -> anyhow::Result<()> {
    let admin = Admin::connect(config).await?;
    let named = |number: u64| Map::from_iter([("number".to_owned(), json!(number))]);
    match command {
        Command::List { json } => {
            let letters = admin.list(AdminCall::Dead, Map::new()).await?;
            if json {
                letters.iter().try_for_each(|letter| print_line(&letter.to_string()))
            } else {
                print_table(letters)
            }
        }
        Command::Retry { number } => {
            let answer = admin.call(AdminCall::DeadRetry, named(number)).await?;
            let text = |name: &str| answer.get(name).and_then(Value::as_str);
            match text("message") {
                Some(message) => print_line(message),
                None => bail!("{}", text("advice").unwrap_or_default()),
            }
        }
        Command::Drop { number, json } => {
            admin.call(AdminCall::DeadDrop, named(number)).await?;
            print::print_success(&format!("dead letter {number} dropped"), json)
        }
    }
}

fn print_table(letters: Vec<Value>) -> anyhow::Result<()> {
    let letters = letters.into_iter().map(serde_json::from_value).collect::<Result<Vec<NumberedLetter>, _>>();
    print_line(&table(&letters.context("cannot read the answer")?))
}

fn table(letters: &[NumberedLetter]) -> String {
    if letters.is_empty() {
        return "no dead letters".to_owned();
    }
    let mut table = print::Table::new();
    table.set_header(["NUMBER", "TIME", "DELIVERED", "SUBJECT", "REASON"]);
    for NumberedLetter { number, letter } in letters {
        table.add_row([
            number.to_string(),
            letter.time.strftime("%F %TZ").to_string(),
            letter.delivered.to_string(),
            letter.subject.clone(),
            letter.reason.clone(),
        ]);
    }
    table.render()
}
