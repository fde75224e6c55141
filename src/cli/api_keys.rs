//! `api-keys`: credentials for callers of the gateway.

use std::num::NonZeroU32;

use anyhow::bail;
use clap::Subcommand;
use jiff::Timestamp;
use serde_json::json;

use super::print::{self, say};
use crate::auth::Role;
use crate::auth::api_key::{self, EXPIRES_DAYS, LifetimeError, ListedKey, NewKey};
use crate::config::Config;
use crate::subject::Account;
use crate::system;

/// Who the audit log says it was.
const ACTOR: &str = "cli";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a key and print it, once: only a hash of it is kept.
    Create {
        /// The account that the key acts for (`A…`).
        #[arg(long)]
        account: Account,
        /// What the key may do.
        #[arg(long, value_enum, default_value = "member")]
        role: Role,
        /// What people call the key.
        #[arg(long, default_value = "")]
        name: String,
        /// Days until it expires.
        #[arg(long, value_name = "DAYS", default_value_t = EXPIRES_DAYS, value_parser = days)]
        expires: u16,
        /// Requests per second that each worker accepts with it; more are refused with 429.
        #[arg(long, value_name = "N")]
        rate_limit: Option<NonZeroU32>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the keys that are not revoked, expired ones included.
    List {
        /// Only this account's.
        #[arg(long)]
        account: Option<Account>,
        /// Print JSON, one object a line.
        #[arg(long)]
        json: bool,
    },
    /// Revoke a key, at once and everywhere. It is no longer listed.
    Revoke {
        /// The key's id, as in the list: the part between the underscores.
        id: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Days that a key may live: the gateway's limit, in its words.
fn days(text: &str) -> Result<u16, LifetimeError> {
    let days = text.parse().map_err(|_| LifetimeError)?;
    api_key::days(days).map(|_| days)
}

pub(super) async fn run(config: &Config, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Create { account, role, name, expires, rate_limit, json } => {
            let lifetime = api_key::days(expires)?;
            create(config, NewKey { account, role, name, lifetime, rate_limit }, (expires, json)).await
        }
        Command::List { account, json } => list(config, account.as_ref(), json).await,
        Command::Revoke { id, json } => revoke(config, &id, json).await,
    }
}

async fn create(config: &Config, new: NewKey, (expires_days, as_json): (u16, bool)) -> anyhow::Result<()> {
    let nats = super::connect(config).await?;
    let may_be_admin = config.auth.admin_accounts.contains(&new.account);
    let (key, listed) = api_key::create(&nats, new, ACTOR).await?;
    if as_json {
        let mut made = json!(listed);
        if let Some(fields) = made.as_object_mut() {
            fields.insert("key".to_owned(), key.expose().into());
            fields.insert("expires_days".to_owned(), expires_days.into());
        }
        return say(&made.to_string());
    }
    let ListedKey { id, account, role, .. } = listed;
    say(key.expose())?;
    eprintln!(
        "Key {id} for account {account}, good for {expires_days} days. It is shown this once; send it as `X-Api-Key`."
    );
    if role == Role::Admin && !may_be_admin {
        eprintln!("To change configs with it, the workers' `auth.admin_accounts` must list the account.");
    }
    Ok(())
}

async fn list(config: &Config, account: Option<&Account>, as_json: bool) -> anyhow::Result<()> {
    let mut keys = api_key::list(&super::connect(config).await?, account).await?;
    keys.sort_by_key(|key| key.created);
    if as_json {
        return keys.iter().try_for_each(|key| say(&json!(key).to_string()));
    }
    if keys.is_empty() {
        return say("no API keys; `tokenbus api-keys create --account A…` makes one");
    }
    let mut table = print::table();
    // The account is wide, and known when it was asked for.
    let cells = |mut cells: Vec<String>| {
        cells.truncate(if account.is_some() { 7 } else { 8 });
        cells
    };
    let header = ["ID", "NAME", "ROLE", "CREATED", "EXPIRES", "LAST USED", "LIMIT", "ACCOUNT"];
    table.set_header(cells(header.map(str::to_owned).to_vec()));
    for key in keys {
        table.add_row(cells(row(key, system::now())));
    }
    say(&print::trimmed(&table))
}

fn row(key: ListedKey, now: Timestamp) -> Vec<String> {
    let ListedKey { id, account, role, name, created, expires, rate_limit, last_used } = key;
    let day = |time: Timestamp| time.strftime("%F").to_string();
    let role = match role {
        Role::Admin => "admin",
        Role::Member => "member",
    };
    vec![
        id,
        name,
        role.to_owned(),
        day(created),
        if expires <= now { format!("{}, expired", day(expires)) } else { day(expires) },
        last_used.map_or_else(|| "never".to_owned(), |time| time.strftime("%F %H:%MZ").to_string()),
        rate_limit.map_or_else(String::new, |limit| format!("{limit}/s")),
        account.to_string(),
    ]
}

async fn revoke(config: &Config, id: &str, json: bool) -> anyhow::Result<()> {
    if !api_key::is_id(id) {
        // What came may be a whole key: it is not repeated.
        bail!("that is not a key's id, which has 12 hexadecimal digits; see `tokenbus api-keys list`");
    }
    let nats = super::connect(config).await?;
    match api_key::revoke(&nats, id, None, ACTOR).await? {
        Some(account) => print::done(&format!("key {id} of account {account} revoked"), json),
        None => bail!("no API key has the id {id}, or it was revoked before; see `tokenbus api-keys list`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<u16>) {
        assert_eq!(days(text).ok(), expected, "{text:?}");
    }

    #[test]
    fn a_key_lives_no_longer_than_the_gateway_lets_it() {
        for (text, expected) in [("1", Some(1)), ("3650", Some(3650)), ("0", None), ("3651", None), ("65535", None)] {
            check(text, expected);
        }
        for text in ["65536", "-1", "", "a year"] {
            check(text, None);
        }
        assert_eq!(LifetimeError.to_string(), "must be 1 to 3650");
    }
}
