//! Compares the permissions of this connection's NATS user with those that its part of the program needs.
//!
//! A process whose user lacks a permission does not start. It would fail later, at some command, with a time-out that names
//! no reason. If the server does not answer the question for a user's permissions, the process logs a warning and starts.

use std::time::Duration;

use async_nats::client::Request;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::jetstream::{Nats, NatsError};
use crate::subject::permission::{Act, Permission, Rules, USER_INFO};
use crate::system;

/// Pause between checks while the server is away.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub(crate) enum PermissionError {
    #[error(
        "NATS user `{user}` of account `{account}` may not {}; add what is missing to the user's permissions in the \
             server's configuration (`nats/accounts.conf` shows all that is needed), then start again",
        list(missing)
    )]
    Missing {
        /// Name or key.
        user: String,
        /// Name or key.
        account: String,
        missing: Vec<Permission>,
    },
    #[error("{0}")]
    Away(#[from] NatsError),
}

fn list(missing: &[Permission]) -> String {
    missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The user of a connection, as the server describes it.
#[derive(Debug, Clone)]
pub(crate) struct OwnUser {
    /// Name or key.
    pub user: String,
    /// Name or key.
    pub account: String,
    /// Lead of the server's clock over this process's, reduced by the time that the answer may have taken.
    pub clock_ahead: SignedDuration,
    publish: Rules,
    subscribe: Rules,
}

impl OwnUser {
    /// Returns the permissions that the user lacks, in whole or in part.
    #[must_use]
    pub(crate) fn missing(&self, needed: Vec<Permission>) -> Vec<Permission> {
        let is_missing = |permission: &Permission| !self.rules(permission.act).allow_all_of(&permission.subject);
        needed.into_iter().filter(is_missing).collect()
    }

    /// Returns the permissions that the user has, in whole or in part.
    #[must_use]
    pub(crate) fn excess(&self, forbidden: Vec<Permission>) -> Vec<Permission> {
        let is_excess = |permission: &Permission| self.rules(permission.act).allow_some_of(&permission.subject);
        forbidden.into_iter().filter(is_excess).collect()
    }

    fn rules(&self, act: Act) -> &Rules {
        match act {
            Act::Publish => &self.publish,
            Act::Subscribe => &self.subscribe,
        }
    }
}

/// Asks the server for this connection's user. Returns nothing if the connected server does not answer, which also
/// happens if the user may not ask.
pub(crate) async fn own_user(nats: &Nats) -> Result<Option<OwnUser>, NatsError> {
    let asked = system::now();
    let answer = match nats.request(USER_INFO, Request::new().payload("".into())).await {
        Ok(answer) => answer,
        Err(_) if nats.is_connected() => return Ok(None),
        Err(away) => return Err(away),
    };
    Ok(parse(&answer.payload, asked, system::now()))
}

/// Checks that the user has these permissions. If they cannot be found out, logs a warning and succeeds.
pub(crate) async fn check(nats: &Nats, needed: Vec<Permission>) -> Result<(), PermissionError> {
    let Some(own) = own_user(nats).await? else {
        warn!("cannot check permissions at NATS: let this user publish `{USER_INFO}`");
        return Ok(());
    };
    let missing = own.missing(needed);
    let OwnUser { user, account, .. } = own;
    if missing.is_empty() {
        info!("user `{user}` of account `{account}` has all NATS permissions that it needs");
        return Ok(());
    }
    Err(PermissionError::Missing { user, account, missing })
}

/// Runs [`check`] as a task. Tries again while the server is away. Returns only when a permission is missing, or
/// after `stop`.
pub(crate) async fn guard(nats: Nats, needed: Vec<Permission>, stop: CancellationToken) -> Result<(), PermissionError> {
    loop {
        let pause = match stop.run_until_cancelled(check(&nats, needed.clone())).await {
            Some(Ok(())) => break,
            Some(Err(missing @ PermissionError::Missing { .. })) => return Err(missing),
            Some(Err(PermissionError::Away(_))) => tokio::time::sleep(RETRY_PAUSE),
            None => return Ok(()),
        };
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = pause => {}
        }
    }
    stop.cancelled().await;
    Ok(())
}

#[derive(Deserialize)]
struct UserInfoAnswer {
    server: Server,
    data: UserInfo,
}

#[derive(Deserialize)]
struct Server {
    time: Timestamp,
}

#[derive(Deserialize)]
struct UserInfo {
    #[serde(rename = "user")]
    id: String,
    account: String,
    #[serde(default, rename = "user_name")]
    name: String,
    #[serde(default)]
    account_name: String,
    #[serde(default)]
    permissions: Permissions,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Permissions {
    publish: Option<Listed>,
    subscribe: Option<Listed>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Listed {
    allow: Option<Vec<String>>,
    deny: Option<Vec<String>>,
}

impl From<Option<Listed>> for Rules {
    fn from(listed: Option<Listed>) -> Self {
        let Listed { allow, deny } = listed.unwrap_or_default();
        Self { allow: allow.unwrap_or_default(), deny: deny.unwrap_or_default() }
    }
}

fn parse(payload: &[u8], asked: Timestamp, answered: Timestamp) -> Option<OwnUser> {
    let UserInfoAnswer { server, data } = serde_json::from_slice(payload).ok()?;
    let UserInfo { id, account, name, account_name, permissions } = data;
    let named = |name: String, key: String| if name.is_empty() { key } else { name };
    // The server wrote the time between question and answer, so only a time outside of that range is a difference.
    let clock_ahead = if server.time > answered {
        server.time.duration_since(answered)
    } else if server.time < asked {
        server.time.duration_since(asked)
    } else {
        SignedDuration::ZERO
    };
    Some(OwnUser {
        user: named(name, id),
        account: named(account_name, account),
        clock_ahead,
        publish: permissions.publish.into(),
        subscribe: permissions.subscribe.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn user_info_is_parsed_with_and_without_permissions() {
        let (asked, answered) = (at("2026-01-01T12:00:00Z"), at("2026-01-01T12:00:01Z"));
        let text = r#"{"server":{"name":"s","time":"2026-01-01T12:00:00.5Z"},"data":{"user":"edge","account":"EDGE",
            "permissions":{"publish":{"allow":["a.*"]},"subscribe":{"deny":["b.>"]}}}}"#;
        let own = parse(text.as_bytes(), asked, answered).unwrap();
        assert_eq!((own.user.as_str(), own.account.as_str(), own.clock_ahead), ("edge", "EDGE", SignedDuration::ZERO));
        assert_eq!(own.publish, Rules { allow: vec!["a.*".to_owned()], deny: Vec::new() });
        assert_eq!(own.subscribe, Rules { allow: Vec::new(), deny: vec!["b.>".to_owned()] });

        let text = r#"{"server":{"time":"2026-01-01T12:00:11Z"},"data":{"user":"UABC","account":"AABC",
            "user_name":"w","account_name":"OAUTH"}}"#;
        let own = parse(text.as_bytes(), asked, answered).unwrap();
        assert_eq!((own.user.as_str(), own.account.as_str()), ("w", "OAUTH"));
        assert_eq!(own.clock_ahead, SignedDuration::from_secs(10));
        assert!(own.publish.allow_all_of(">"));
        assert!(parse(b"{}", asked, answered).is_none());
    }
}
