//! `dead`: commands that were given up.

use anyhow::bail;
use clap::Subcommand;

use super::print::{self, say};
use crate::config::Config;
use crate::protocol::commands::{self as queue, NumberedLetter};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the dead letters.
    List {
        /// Print JSON, one object a line.
        #[arg(long)]
        json: bool,
    },
    /// Say how a command can be carried out after all. What was sealed in it is not kept, so whoever sent it has to send
    /// it again.
    Retry {
        /// The letter's number in the list.
        number: u64,
    },
    /// Drop a dead letter.
    Drop {
        /// The letter's number in the list.
        number: u64,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(config: &Config, command: Command) -> anyhow::Result<()> {
    let nats = super::connect(config).await?;
    match command {
        Command::List { json: true } => {
            for NumberedLetter { number, letter } in queue::dead_letters(&nats).await? {
                say(&serde_json::json!({ "number": number, "letter": letter }).to_string())?;
            }
        }
        Command::List { json: false } => say(&table(&queue::dead_letters(&nats).await?))?,
        Command::Retry { number } => {
            let Some(buried) = queue::dead_letters(&nats).await?.into_iter().find(|buried| buried.number == number)
            else {
                bail!("{}", unknown(number));
            };
            bail!("{}", advice(&buried));
        }
        Command::Drop { number, json } => {
            if !queue::dead_letters(&nats).await?.iter().any(|buried| buried.number == number) {
                bail!("{}", unknown(number));
            }
            queue::forget(&nats, number).await?;
            print::done(&format!("dead letter {number} dropped"), json)?;
        }
    }
    Ok(())
}

fn unknown(number: u64) -> String {
    format!("no dead letter has the number {number}; see `tokenbus dead list`")
}

fn advice(buried: &NumberedLetter) -> String {
    let subject = &buried.letter.subject;
    match subject.rsplit('.').next() {
        Some("exchange") => format!("{subject}: a code is never sent twice; start the login again"),
        Some("put" | "delete") => format!("{subject}: its content was sealed and is not kept; send the request again"),
        Some(_) if buried.letter.reason.starts_with("webhook:") => {
            format!("{subject}: its receiver did not take it in ten hours; the event is still in `OAUTH_EVENTS`")
        }
        _ => format!("{subject}: this cannot be sent again from here"),
    }
}

fn table(buried: &[NumberedLetter]) -> String {
    if buried.is_empty() {
        return "no dead letters".to_owned();
    }
    let mut table = print::table();
    table.set_header(["NUMBER", "TIME", "DELIVERED", "SUBJECT", "REASON"]);
    for NumberedLetter { number, letter } in buried {
        table.add_row([
            number.to_string(),
            letter.time.strftime("%F %TZ").to_string(),
            letter.delivered.to_string(),
            letter.subject.clone(),
            letter.reason.clone(),
        ]);
    }
    print::trimmed(&table)
}
