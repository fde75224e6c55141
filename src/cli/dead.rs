//! `dead`: dead letters, the commands that workers gave up.

use anyhow::bail;
use clap::Subcommand;

use super::print::{self, print_line};
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
    /// Print how to get the command done. Its sealed content is not stored, so only its sender can send it again.
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
    let nats = super::connect(config).await?;
    match command {
        Command::List { json: true } => {
            for NumberedLetter { number, letter } in queue::dead_letters(&nats).await? {
                print_line(&serde_json::json!({ "number": number, "letter": letter }).to_string())?;
            }
        }
        Command::List { json: false } => print_line(&table(&queue::dead_letters(&nats).await?))?,
        Command::Retry { number } => {
            let Some(letter) = queue::dead_letters(&nats).await?.into_iter().find(|letter| letter.number == number)
            else {
                bail!("{}", unknown(number));
            };
            bail!("{}", advice(&letter));
        }
        Command::Drop { number, json } => {
            if !queue::dead_letters(&nats).await?.iter().any(|letter| letter.number == number) {
                bail!("{}", unknown(number));
            }
            queue::delete_dead_letter(&nats, number).await?;
            print::print_success(&format!("dead letter {number} dropped"), json)?;
        }
    }
    Ok(())
}

fn unknown(number: u64) -> String {
    format!("no dead letter has the number {number}; see `tokenbus dead list`")
}

fn advice(NumberedLetter { letter, .. }: &NumberedLetter) -> String {
    let subject = &letter.subject;
    match subject.rsplit('.').next() {
        Some("exchange") => format!("{subject}: a code is never sent twice; start the login again"),
        Some("put" | "delete") => format!("{subject}: its sealed content is not stored; send the request again"),
        Some(_) if letter.reason.starts_with("webhook:") => {
            format!("{subject}: its receiver did not accept it for ten hours; the event is still in `OAUTH_EVENTS`")
        }
        _ => format!("{subject}: cannot be sent again from here"),
    }
}

fn table(letters: &[NumberedLetter]) -> String {
    if letters.is_empty() {
        return "no dead letters".to_owned();
    }
    let mut table = print::table();
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
    print::render(&table)
}
