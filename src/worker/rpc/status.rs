//! The one table from a failure to the HTTP status that answers and stored failures carry.
//!
//! Commands and calls return a [`Failure`]; the gateway passes the status on unchanged. Statuses of 4xx tell the caller to
//! change something, 5xx to try again or to see an operator.

use std::time::Duration;

use crate::auth::AuthError;
use crate::command::WorkerReply;
use crate::connection::NEEDS_LOGIN;
use crate::connection::lifecycle::Failed;
use crate::oauth::error::{ErrorCode, ErrorKind};
use crate::oauth::token::TokenError;
use crate::store::StoreError;
use crate::worker::provider_calls::NoTokens;

/// Why a call or command fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The request, or the config that it sends, is wrong.
    BadRequest,
    /// The provider refuses the grant, or the connection needs a login: only a person's new login helps.
    LoginNeeded,
    /// A newer login, deletion or config came first.
    Superseded,
    /// The credential, state or ticket is missing, unknown, expired, used or another account's, or not an admin's.
    Unauthorized,
    /// The integration, connection, key or call does not exist.
    NotFound,
    /// The question is larger than its limit.
    TooLarge,
    /// The caller exceeds one of its limits.
    RateLimited,
    /// The provider is unreachable or broken, or rejects the integration's own credentials.
    ProviderFailed,
    /// A stored value cannot be read.
    Unreadable,
    /// The access token has expired and cannot be refreshed now.
    TokenExpired,
    /// The login was interrupted after its code may have been sent.
    LoginInterrupted,
    /// A worker gave the command up; a dead letter has the reason.
    GivenUp,
    /// The refresh was interrupted after its refresh token may have been sent. It is tried again later.
    RefreshInterrupted,
    /// The worker has no capacity for this integration now.
    Busy,
    /// NATS, or a key set that credentials need, is unavailable.
    Unavailable,
    /// The command, or another one that it waits for, is queued or running and may still succeed.
    StillRunning,
}

impl Failure {
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::BadRequest | Self::LoginNeeded | Self::Superseded => 400,
            Self::Unauthorized => 401,
            Self::NotFound => 404,
            Self::TooLarge => 413,
            Self::RateLimited => 429,
            Self::ProviderFailed | Self::Unreadable | Self::TokenExpired | Self::LoginInterrupted | Self::GivenUp => {
                502
            }
            Self::RefreshInterrupted | Self::Busy | Self::Unavailable => 503,
            Self::StillRunning => 504,
        }
    }

    /// Builds the answer, with a text for people.
    pub(crate) fn answer(self, text: &str) -> WorkerReply {
        WorkerReply::error(self.status(), text)
    }

    /// Builds the answer, with the time after which another try may succeed.
    pub(crate) fn answer_after(self, text: &str, wait: Duration) -> WorkerReply {
        self.answer(text).after(Some(wait))
    }
}

/// Answers a refresh during the hold that follows a restart of the server.
pub(crate) fn after_restart(left: Duration) -> WorkerReply {
    let text = "the NATS server was restarted, and a refresh may still be running; try again later";
    Failure::Unavailable.answer_after(text, left)
}

/// Returns true if the answer is a success.
pub(crate) fn is_success(answer: &WorkerReply) -> bool {
    answer.status == 200
}

pub(crate) fn is_rate_limited(answer: &WorkerReply) -> bool {
    answer.status == Failure::RateLimited.status()
}

/// Returns the wait if the answer asks the caller to repeat the command later.
pub(crate) fn requested_wait(answer: &WorkerReply) -> Option<Duration> {
    let seconds = answer.retry_after.filter(|_| answer.status == Failure::Busy.status());
    seconds.map(Duration::from_secs)
}

/// Answers for a connection whose grant has ended.
pub(crate) fn needs_login(reason: Option<&str>) -> WorkerReply {
    match reason {
        Some(reason) => Failure::LoginNeeded.answer(reason).with_reason(reason),
        None => Failure::LoginNeeded.answer(NEEDS_LOGIN),
    }
}

/// Turns a failed authentication into its answer. If the bus was unavailable, nothing was decided: that is an error, and
/// a command is tried again.
pub(crate) fn answer_to_auth_error(error: AuthError) -> Result<WorkerReply, StoreError> {
    let text = error.to_string();
    match error {
        AuthError::Bus(error) => Err(error.into()),
        AuthError::Limited { retry_after_seconds } => {
            Ok(Failure::RateLimited.answer_after(&text, Duration::from_secs(retry_after_seconds)))
        }
        AuthError::NoKeys(_) => Ok(Failure::Unavailable.answer(&text)),
        AuthError::Missing | AuthError::Rejected(_) | AuthError::Scope(_) => Ok(Failure::Unauthorized.answer(&text)),
    }
}

/// Classifies the failure of a token request: the caller can help with a new login, or the operator has to act.
pub(crate) fn failure_of_no_tokens(error: &NoTokens) -> Failure {
    match error {
        NoTokens::Refused { error: TokenError::Oauth(code), .. } if !blames_integration(*code) => Failure::LoginNeeded,
        NoTokens::Request(_) | NoTokens::OutOfTime | NoTokens::Unreachable(_) | NoTokens::Refused { .. } => {
            Failure::ProviderFailed
        }
    }
}

/// Describes a failed refresh for the rules of the grant's life.
pub(crate) fn failed_refresh(error: &NoTokens) -> Failed {
    let (reason, status) = (error.reason().to_owned(), failure_of_no_tokens(error).status());
    Failed { meaning: error.meaning(), reason, status, retry_after: error.retry_after() }
}

/// Returns true for codes that name a failure of the provider, or its refusal of the integration's own credentials.
fn blames_integration(code: ErrorCode) -> bool {
    matches!(code.kind(), ErrorKind::InvalidClient | ErrorKind::Temporary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c5_blame_decides_the_status() {
        for (code, status) in [
            ("invalid_grant", 400),
            ("access_denied", 400),
            ("invalid_scope", 400),
            ("anything", 400),
            ("invalid_client", 502),
            ("unauthorized_client", 502),
            ("server_error", 502),
            ("temporarily_unavailable", 502),
        ] {
            let error = NoTokens::Refused {
                error: TokenError::Oauth(ErrorCode::parse(code)),
                retry_after: None,
                answer: Box::default(),
            };
            assert_eq!(failure_of_no_tokens(&error).status(), status, "{code}");
        }
        for error in [
            TokenError::RateLimited,
            TokenError::ServerError(500),
            TokenError::Unreadable,
            TokenError::TooLarge { part: "body", most: 1 },
        ] {
            let text = error.to_string();
            let error = NoTokens::Refused { error, retry_after: None, answer: Box::default() };
            assert_eq!(failure_of_no_tokens(&error).status(), 502, "{text}");
        }
    }

    #[test]
    fn statuses_are_those_of_the_http_contract() {
        #[track_caller]
        fn check(failure: Failure, expected: u16) {
            assert_eq!(failure.status(), expected, "{failure:?}");
        }
        check(Failure::BadRequest, 400);
        check(Failure::LoginNeeded, 400);
        check(Failure::Superseded, 400);
        check(Failure::Unauthorized, 401);
        check(Failure::NotFound, 404);
        check(Failure::TooLarge, 413);
        check(Failure::RateLimited, 429);
        check(Failure::ProviderFailed, 502);
        check(Failure::Unreadable, 502);
        check(Failure::TokenExpired, 502);
        check(Failure::LoginInterrupted, 502);
        check(Failure::GivenUp, 502);
        check(Failure::RefreshInterrupted, 503);
        check(Failure::Busy, 503);
        check(Failure::Unavailable, 503);
        check(Failure::StillRunning, 504);
    }
}
