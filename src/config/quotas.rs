//! Quotas of each account: the section `limits`, and what `accounts.<key>.limits` overrides.

use std::time::Duration;

use serde::Deserialize;

use super::{Config, form};
use crate::subject::Account;

/// Section `limits`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Most connections of one account.
    pub connections: u64,
    /// Events per minute of one account in each worker, without those of changes.
    pub events_per_minute: u32,
    /// Age at which the record of a deleted connection is removed.
    #[serde(deserialize_with = "form::duration")]
    pub tombstones: Duration,
}

/// Section `accounts.<key>.limits`.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountLimits {
    #[serde(default)]
    connections: Option<u64>,
    #[serde(default)]
    events_per_minute: Option<u32>,
    #[serde(default)]
    max_pending_logins: Option<u64>,
}

impl Config {
    /// Returns the most connections of an account.
    pub(crate) fn max_connections(&self, account: &Account) -> u64 {
        self.limits_of(account).connections.unwrap_or(self.limits.connections)
    }

    pub(crate) fn max_pending_logins(&self, account: &Account) -> u64 {
        self.limits_of(account).max_pending_logins.unwrap_or(self.oauth.max_pending_logins)
    }

    pub(crate) fn events_per_minute(&self, account: &Account) -> u32 {
        self.limits_of(account).events_per_minute.unwrap_or(self.limits.events_per_minute)
    }

    fn limits_of(&self, account: &Account) -> AccountLimits {
        self.accounts.get(account).map(|settings| settings.limits).unwrap_or_default()
    }
}
