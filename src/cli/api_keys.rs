//! `api-keys`: credentials for callers of the gateway.

use clap::Subcommand;
use serde_json::json;

use crate::auth::Role;
use crate::auth::api_key::{self, NewKey};
use crate::config::Config;
use crate::subject::Account;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a key and print it, once: only a hash of it is kept.
    Create {
        /// The account that the key acts for (`A…`).
        #[arg(long)]
        account: Account,
        /// `admin` may change configs, if the account is listed in `auth.admin_accounts`, too.
        #[arg(long, value_enum, default_value = "member")]
        role: Role,
        /// What people call the key.
        #[arg(long, default_value = "")]
        name: String,
        /// Days until it ends.
        #[arg(long, value_name = "DAYS", default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..))]
        expires: u16,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(config: &Config, command: Command) -> anyhow::Result<()> {
    let Command::Create { account, role, name, expires, json } = command;
    let nats = super::connect(config).await?;
    let lifetime = api_key::days(expires);
    let listed = config.auth.admin_accounts.contains(&account);
    let (key, id) = api_key::create(&nats, NewKey { account: account.clone(), role, name, lifetime }).await?;
    if json {
        println!(
            "{}",
            json!({ "id": id, "key": key.expose(), "account": account, "role": role, "expires_days": expires })
        );
        return Ok(());
    }
    println!("{}", key.expose());
    eprintln!(
        "Key {id} for account {account}, good for {expires} days. It is shown this once; send it as `X-Api-Key`."
    );
    if role == Role::Admin && !listed {
        eprintln!("To change configs with it, the workers' `auth.admin_accounts` must list the account.");
    }
    Ok(())
}
