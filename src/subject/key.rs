//! Keys of pending logins, and filters of bucket keys.

use super::{Account, Integration};

/// Key of a pending login in [`STATES`](super::STATES).
#[must_use]
pub(crate) fn state_key(state_hash: &str, account: &Account) -> String {
    format!("{state_hash}.{account}")
}

/// Filter that finds a pending login when its account is not known yet.
#[must_use]
pub(crate) fn state_key_of_any(state_hash: &str) -> String {
    format!("{state_hash}.*")
}

/// Filter of one account's pending logins.
#[must_use]
pub(crate) fn states_of(account: &Account) -> String {
    format!("*.{account}")
}

/// Key of a start ticket. It has one token more than a login's key, so the two cannot be confused.
#[must_use]
pub(crate) fn ticket_key(ticket_hash: &str, account: &Account) -> String {
    format!("{ticket_hash}.{account}.start")
}

/// Filter that finds a start ticket when its account is not known yet.
#[must_use]
pub(crate) fn ticket_key_of_any(ticket_hash: &str) -> String {
    format!("{ticket_hash}.*.start")
}

/// Filter of one account's connections, at one integration or at all.
#[must_use]
pub(crate) fn connections_of(account: &Account, integration: Option<&Integration>) -> String {
    let integration = integration.map_or("*", Integration::as_str);
    format!("{account}.{integration}.*")
}

/// Filter of all accounts' connections at one integration.
#[must_use]
pub(crate) fn connections_at(integration: &Integration) -> String {
    format!("*.{integration}.*")
}

/// Splits the key of a connection into its account and the rest. Checks no names.
#[must_use]
pub(crate) fn split_account(kv_key: &str) -> Option<(&str, &str)> {
    let (account, rest) = kv_key.split_once('.')?;
    (rest.split('.').count() == 2).then_some((account, rest))
}

/// Puts the two parts of [`split_account`] together.
#[must_use]
pub(crate) fn with_account(account: &Account, rest: &str) -> String {
    format!("{account}.{rest}")
}

/// Returns the integration in the second part of [`split_account`].
#[must_use]
pub(crate) fn integration_of(rest: &str) -> &str {
    rest.split_once('.').map_or(rest, |(integration, _)| integration)
}
