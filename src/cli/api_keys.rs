//! `api-keys`: API keys for callers of the gateway.

use std::num::NonZeroU32;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::admin::Admin;
use super::print::{self, note, print_line};
use crate::auth::api_key::{self, EXPIRES_DAYS, LifetimeError, ListedKey};
use crate::call::AdminCall;
use crate::client::CallError;
use crate::config::Config;
use crate::rights::{Networks, Role, Scope, Scopes};
use crate::secret::Secret;
use crate::subject::Account;
use crate::system;

/// The answer to a creation, as far as people see it.
#[derive(Deserialize)]
struct Created {
    id: String,
    account: Account,
    #[serde(default)]
    role: Option<Role>,
    key: Secret,
}

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
            let mut question = Map::from_iter([
                ("account".to_owned(), json!(account)),
                ("name".to_owned(), json!(name)),
                ("networks".to_owned(), json!(Networks::parse(&networks)?)),
                ("expires_days".to_owned(), json!(expires)),
                ("rate_limit".to_owned(), json!(rate_limit)),
            ]);
            match scopes {
                Some(scopes) => question.insert("scopes".to_owned(), json!(Scopes::from_iter(scopes))),
                None => question.insert("role".to_owned(), json!(role)),
            };
            create(config, question, json).await
        }
        Command::List { account, json } => list(config, account.as_ref(), json).await,
        Command::Revoke { id, json } => revoke(config, &id, json).await,
    }
}

async fn create(config: &Config, question: Map<String, Value>, as_json: bool) -> anyhow::Result<()> {
    let expires_days = question.get("expires_days").cloned().unwrap_or_default();
    let mut created = Admin::connect(config).await?.call(AdminCall::KeysCreate, question).await?;
    if as_json {
        if let Some(fields) = created.as_object_mut() {
            fields.insert("expires_days".to_owned(), expires_days);
        }
        return print_line(&created.to_string());
    }
    let Created { id, account, role, key } = serde_json::from_value(created).context("cannot read the answer")?;
    print_line(key.expose())?;
    note(&format!(
        "Key {id} of account {account}, valid for {expires_days} days. It is not shown again; send it as `X-Api-Key`."
    ));
    if role == Some(Role::Admin) && !config.auth.admin_accounts.contains(&account) {
        note("To change configs with this key, add the account to `auth.admin_accounts` of the workers.");
    }
    Ok(())
}

async fn list(config: &Config, account: Option<&Account>, as_json: bool) -> anyhow::Result<()> {
    let mut question = Map::new();
    question.extend(account.map(|account| ("account".to_owned(), json!(account))));
    let listed = Admin::connect(config).await?.list(AdminCall::Keys, question).await?;
    let read = |key: &Value| Ok((key.clone(), ListedKey::deserialize(key).context("cannot read the answer")?));
    let mut keys = listed.iter().map(read).collect::<anyhow::Result<Vec<(Value, ListedKey)>>>()?;
    keys.sort_by_key(|(_, key)| key.created);
    if as_json {
        return keys.iter().try_for_each(|(key, _)| print_line(&key.to_string()));
    }
    if keys.is_empty() {
        return print_line("no API keys; `tokenbus api-keys create --account A…` makes one");
    }
    let mut table = print::Table::new();
    // An account is 56 characters wide, so it is left out when the caller named it.
    let cells = |mut cells: Vec<String>| {
        cells.truncate(if account.is_some() { 8 } else { 9 });
        cells
    };
    let header = ["ID", "NAME", "RIGHTS", "NETWORKS", "CREATED", "EXPIRES", "LAST USED", "LIMIT", "ACCOUNT"];
    table.set_header(cells(header.map(str::to_owned).to_vec()));
    for (_, key) in keys {
        table.add_row(cells(row(key, system::now())));
    }
    print_line(&table.render())
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
    let question = Map::from_iter([("key_id".to_owned(), json!(id))]);
    let revoked = Admin::connect(config).await?.call(AdminCall::KeysRevoke, question).await;
    let revoked = match revoked {
        Err(error) if error.downcast_ref().is_some_and(CallError::is_unknown) => {
            bail!("no API key has the id {id}, or it is revoked already; see `tokenbus api-keys list`")
        }
        answer => answer?,
    };
    let account = revoked.get("account").and_then(Value::as_str).unwrap_or_default();
    print::print_success(&format!("key {id} of account {account} revoked"), json)
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
