//! A workflow node: prints each new state of a connection as it arrives.
//!
//!     NATS_URL=nats://127.0.0.1:4222 NATS_USER=demo NATS_PASSWORD=… \
//!       cargo run --example token_source -- A… slack workspace1

use std::error::Error;

use async_nats::{Client, ConnectOptions};
use tokenbus::client::TokenSource;
use tokenbus::connection::OauthConnection;
use tokenbus::subject::ConnectionKey;

#[tokio::main]
#[expect(clippy::disallowed_methods, reason = "an example has no settings file")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [account, integration, name] = arguments.as_slice() else {
        return Err("usage: token_source <account> <integration> <connection>".into());
    };
    let key = ConnectionKey::parse(account, integration, name)?;
    let setting = |name: &str| std::env::var(name).map_err(|_| format!("{name} is not set"));
    let options = ConnectOptions::with_user_and_password(setting("NATS_USER")?, setting("NATS_PASSWORD")?);
    let client = options.connect(setting("NATS_URL")?).await?;
    follow(client, key, |line| println!("{line}")).await
}

/// Prints each new state until the client is dropped.
pub(crate) async fn follow(client: Client, key: ConnectionKey, say: impl Fn(String)) -> Result<(), Box<dyn Error>> {
    let mut source = TokenSource::open(client, key).await?;
    let mut current = source.current();
    loop {
        match &current {
            Some(connection) => say(shown(connection)),
            None => say("not connected yet".to_owned()),
        }
        current = source.changed().await?;
    }
}

/// Here a node would call its provider with `access_token`. A token has no place in a log.
fn shown(connection: &OauthConnection) -> String {
    let length = connection.access_token.as_ref().map_or(0, |token| token.expose().len());
    let OauthConnection { sequence, status, .. } = connection;
    format!("sequence {sequence}: {}, a token of {length} characters", status.as_str())
}
