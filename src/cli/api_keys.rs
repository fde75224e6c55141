//! `api-keys`: API keys for callers of the gateway.

use std::num::NonZeroU32;

use anyhow::bail;
use clap::Subcommand;
use jiff::Timestamp;
use serde_json::json;

use super::print::{self, print_line};
use crate::auth::api_key::{self, Author, EXPIRES_DAYS, LifetimeError, ListedKey, NewKey};
use crate::command::Origin;
use crate::config::Config;
use crate::rights::{Grant, Networks, Rights, Role, Scope, Wish};
use crate::subject::Account;
use crate::system;

/// Author in the audit log.
const AUTHOR: Author<'static> = Author { actor: "cli", origin: Origin { client_address: None, request_id: None } };

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a key and print it. It cannot be shown again: only its hash is stored.
    Create {
        /// Account that the key acts for (`A…`).
        #[arg(long)]
        account: Account,
        /// Role of the key: all scopes, or those in `auth.member_scopes`.
        #[arg(long, value_enum, default_value = "member")]
        role: Role,
        /// Scopes of the key in place of a role, comma-separated.
        #[arg(long, value_enum, value_delimiter = ',', conflicts_with = "role")]
        scopes: Option<Vec<Scope>>,
        /// Addresses and networks that the key may be used from, comma-separated; without any, everywhere.
        #[arg(long, value_name = "CIDR", value_delimiter = ',')]
        networks: Vec<String>,
        /// Name for people.
        #[arg(long, default_value = "")]
        name: String,
        /// Days until it expires.
        #[arg(long, value_name = "DAYS", default_value_t = EXPIRES_DAYS, value_parser = parse_days)]
        expires: u16,
        /// Requests per second that each worker accepts with the key; more get 429.
        #[arg(long, value_name = "N")]
        rate_limit: Option<NonZeroU32>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List all keys that are not revoked, including expired ones.
    List {
        /// List only this account's keys.
        #[arg(long)]
        account: Option<Account>,
        /// Print JSON, one object a line.
        #[arg(long)]
        json: bool,
    },
    /// Revoke a key. Takes effect at once on all workers; the key is no longer listed.
    Revoke {
        /// Id of the key, as in the list: the part between the underscores.
        id: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Parses a lifetime in days, with the limit and the error text of the HTTP interface.
fn parse_days(text: &str) -> Result<u16, LifetimeError> {
    let Ok(days) = text.parse() else { return Err(LifetimeError) };
    api_key::end_of(Some(days), system::now()).map(|_| days)
}

pub(super) async fn run(config: &Config, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Create { account, role, scopes, networks, name, expires, rate_limit, json } => {
            let grant = scopes.map_or(Grant::Role(role), |scopes| Grant::Scopes(scopes.into_iter().collect()));
            let networks = Networks::parse(&networks)?;
            let wish = Wish { grant, networks, end: api_key::end_of(Some(expires), system::now())? };
            let rights = Rights::all().derive(wish, &config.auth.member_scopes)?;
            create(config, NewKey { account, rights, name, rate_limit }, expires, json).await
        }
        Command::List { account, json } => list(config, account.as_ref(), json).await,
        Command::Revoke { id, json } => revoke(config, &id, json).await,
    }
}

async fn create(config: &Config, new: NewKey, expires_days: u16, as_json: bool) -> anyhow::Result<()> {
    let nats = super::connect(config).await?;
    let may_be_admin = config.auth.admin_accounts.contains(&new.account);
    let (key, listed) = api_key::create(&nats, new, &AUTHOR, &config.auth.member_scopes).await?;
    if as_json {
        let mut created = json!(listed);
        if let Some(fields) = created.as_object_mut() {
            fields.insert("key".to_owned(), key.expose().into());
            fields.insert("expires_days".to_owned(), expires_days.into());
        }
        return print_line(&created.to_string());
    }
    let ListedKey { id, account, role, .. } = listed;
    print_line(key.expose())?;
    eprintln!(
        "Key {id} of account {account}, valid for {expires_days} days. It is not shown again; send it as `X-Api-Key`."
    );
    if role == Some(Role::Admin) && !may_be_admin {
        eprintln!("To change configs with this key, add the account to `auth.admin_accounts` of the workers.");
    }
    Ok(())
}

async fn list(config: &Config, account: Option<&Account>, as_json: bool) -> anyhow::Result<()> {
    let mut keys = api_key::list(&super::connect(config).await?, account, &config.auth.member_scopes).await?;
    keys.sort_by_key(|key| key.created);
    if as_json {
        return keys.iter().try_for_each(|key| print_line(&json!(key).to_string()));
    }
    if keys.is_empty() {
        return print_line("no API keys; `tokenbus api-keys create --account A…` makes one");
    }
    let mut table = print::table();
    // An account is 56 characters wide, so it is left out when the caller named it.
    let cells = |mut cells: Vec<String>| {
        cells.truncate(if account.is_some() { 8 } else { 9 });
        cells
    };
    let header = ["ID", "NAME", "RIGHTS", "NETWORKS", "CREATED", "EXPIRES", "LAST USED", "LIMIT", "ACCOUNT"];
    table.set_header(cells(header.map(str::to_owned).to_vec()));
    for key in keys {
        table.add_row(cells(row(key, system::now())));
    }
    print_line(&print::render(&table))
}

fn row(key: ListedKey, now: Timestamp) -> Vec<String> {
    let ListedKey { id, account, role, scopes, networks, name, created, expires, rate_limit, last_used } = key;
    let day = |time: Timestamp| time.strftime("%F").to_string();
    let rights = match role {
        Some(Role::Admin) => "admin".to_owned(),
        Some(Role::Member) => "member".to_owned(),
        None => scopes.to_string(),
    };
    vec![
        id,
        name,
        rights,
        networks.to_string(),
        day(created),
        if expires <= now { format!("{}, expired", day(expires)) } else { day(expires) },
        last_used.map_or_else(|| "never".to_owned(), |time| time.strftime("%F %H:%MZ").to_string()),
        rate_limit.map_or_else(String::new, |limit| format!("{limit}/s")),
        account.to_string(),
    ]
}

async fn revoke(config: &Config, id: &str, json: bool) -> anyhow::Result<()> {
    if !api_key::is_id(id) {
        // The argument may be a whole key, so the error does not repeat it.
        bail!("not a key's id: it has 12 hexadecimal digits; see `tokenbus api-keys list`");
    }
    let nats = super::connect(config).await?;
    match api_key::revoke(&nats, id, None, &AUTHOR).await? {
        Some(account) => print::print_success(&format!("key {id} of account {account} revoked"), json),
        None => bail!("no API key has the id {id}, or it is revoked already; see `tokenbus api-keys list`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<u16>) {
        assert_eq!(parse_days(text).ok(), expected, "{text:?}");
    }

    #[test]
    fn lifetimes_have_the_gateways_limit() {
        for (text, expected) in [("1", Some(1)), ("3650", Some(3650)), ("0", None), ("3651", None), ("65535", None)] {
            check(text, expected);
        }
        for text in ["65536", "-1", "", "a year"] {
            check(text, None);
        }
        assert_eq!(LifetimeError.to_string(), "must be 1 to 3650");
    }
}
