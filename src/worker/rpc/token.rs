//! `token`: a call that returns a connection with a token that stays valid for a while.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::status::{self, Failure};
use super::{CallError, Checked, ConnectionQuestion, change, no_connection};
use crate::connection::{CONFIG_CHANGED, NO_CONFIG, NO_REFRESH_TOKEN, OauthConnection, Status};
use crate::subject::ConnectionKey;
use crate::worker::context::Context;

/// Returns the connection, refreshed first if its token expires soon. If the refresh fails, returns the old token while it
/// is valid.
pub(super) async fn token(
    context: &Context,
    checked: Checked<'_>,
    question: &ConnectionQuestion,
) -> Result<Value, CallError> {
    let key = question.key(checked.caller);
    let mut connection = read(context, &key).await?;
    let now = context.clock.now();
    let default = context.config.refresh.min_valid.map(|setting| connection.min_valid_default(setting));
    let min_valid = question.min_valid.map(|seconds| Duration::from_secs(seconds.into())).or(default);
    if connection.status != Status::Active || is_paused(&connection) || !connection.is_near_expiry(now, min_valid) {
        return Ok(json!(connection));
    }
    if connection.refresh_token.is_none() && connection.expiry.is_some_and(|expiry| expiry > now) {
        connection.status_reason = Some(NO_REFRESH_TOKEN.to_owned());
        return Ok(json!(connection));
    }
    // Without a refresh token, the command ends the connection.
    match change::refresh(context, checked, &key, None, question.began).await {
        Err(refused @ (CallError::Refused(..) | CallError::Answered(_))) => {
            // Read again: the connection may have changed. If it is not active, it is the answer even without a token: its
            // status says why there is none.
            let connection = read(context, &key).await?;
            let is_answer = connection.status != Status::Active
                || is_paused(&connection)
                || connection.expiry.is_none_or(|expiry| expiry > context.clock.now());
            let is_held = context.restarts.hold_left(context.clock.now()).is_some();
            let is_limited =
                matches!(&refused, CallError::Answered(answer) if is_held || status::is_rate_limited(answer));
            if is_answer {
                Ok(json!(connection))
            } else if is_limited {
                Err(refused)
            } else {
                Err(CallError::Refused(
                    Failure::TokenExpired,
                    "the token has expired and cannot be refreshed at the moment".to_owned(),
                ))
            }
        }
        refreshed => refreshed,
    }
}

/// Reads the connection, with `status_reason` set if refreshes pause because its integration has no config.
async fn read(context: &Context, key: &ConnectionKey) -> Result<OauthConnection, CallError> {
    let store = &context.store;
    let (connection, config) = tokio::join!(store.connection(key), store.is_configured(&key.integration));
    let mut connection = connection?.ok_or_else(no_connection)?;
    // If the config cannot be read, return the token without the explanation.
    set_pause_reason(&mut connection, config.unwrap_or(true), context.clock.now());
    Ok(connection)
}

/// Returns true if refreshes wait for a config that fits.
fn is_paused(connection: &OauthConnection) -> bool {
    connection.status_reason.as_deref().is_some_and(|reason| reason == NO_CONFIG || reason == CONFIG_CHANGED)
}

/// Sets or clears the reason `no_config`. Removes an expired access token that nothing renews.
pub(super) fn set_pause_reason(connection: &mut OauthConnection, has_config: bool, now: Timestamp) {
    let has_no_config_reason = connection.status_reason.as_deref() == Some(NO_CONFIG);
    if connection.is_kept_alive() && has_config == has_no_config_reason {
        connection.status_reason = (!has_config).then(|| NO_CONFIG.to_owned());
    }
    let is_renewed = has_config && connection.status == Status::Active && !is_paused(connection);
    if !is_renewed && connection.expiry.is_some_and(|expiry| expiry <= now) {
        connection.access_token = None;
    }
}
