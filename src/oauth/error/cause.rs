//! The setting or condition that a refused login blames, from words of providers in `config/error_codes.toml`.

use regex::Regex;
use serde::{Deserialize, Serialize};

use super::{ErrorCode, words};
use crate::oauth::ProviderAnswer;
use crate::oauth::token::TokenError;

/// Why a provider refuses a login. Serves people; tokenbus itself reacts to the [`ErrorCode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Cause {
    ClientId,
    ClientSecret,
    /// The client's id or its secret.
    Client,
    /// The provider knows the app, but does not allow it this kind of login.
    App,
    RedirectUrl,
    Scopes,
    Pkce,
    /// The answer is not that of a token endpoint.
    TokenUrl,
    /// The authorization code has expired or was used before. No setting is wrong.
    Code,
    /// The provider's words fit both.
    CodeOrRedirectUrl,
    /// The provider names no reason that is known here.
    Request,
}

impl Cause {
    /// Returns true if every further login fails in the same way until someone changes a setting.
    pub(crate) fn is_lasting(self) -> bool {
        match self {
            Self::ClientId
            | Self::ClientSecret
            | Self::Client
            | Self::App
            | Self::RedirectUrl
            | Self::Scopes
            | Self::TokenUrl => true,
            Self::Pkce | Self::Code | Self::CodeOrRedirectUrl | Self::Request => false,
        }
    }

    /// Judges a refused code exchange, by the provider's words and then by the error. Temporary failures have no cause.
    pub(crate) fn of_answer(error: TokenError, answer: &ProviderAnswer) -> Option<Self> {
        let in_words = || Self::in_words(answer.error.as_deref(), answer.detail.as_deref());
        match error {
            TokenError::RateLimited | TokenError::ServerError(_) | TokenError::TooLarge { .. } => None,
            TokenError::Unauthorized => in_words().or(Some(Self::Client)),
            TokenError::Oauth(code) => in_words().or_else(|| match (Self::of_code(code), answer.status) {
                (Some(Self::Request), 401) => Some(Self::Client),
                (Some(Self::Request), status) => Some(Self::of_status(status)),
                (cause, _) => cause,
            }),
            // A page, or a redirect, which is not followed.
            TokenError::Unreadable if answer.status < 400 => Some(Self::TokenUrl),
            TokenError::Unreadable => in_words().or(Some(Self::of_status(answer.status))),
        }
    }

    /// Judges the error of a callback. The description only selects one of the causes: it may come from anyone.
    pub(crate) fn of_callback(code: ErrorCode, error: &str, description: Option<&str>) -> Option<Self> {
        // The person's own choice, also with a description that blames a setting.
        if code == ErrorCode::AccessDenied {
            None
        } else {
            Self::in_words(Some(error), description).or(Self::of_code(code))
        }
    }

    fn of_code(code: ErrorCode) -> Option<Self> {
        match code {
            ErrorCode::InvalidClient => Some(Self::Client),
            ErrorCode::UnauthorizedClient => Some(Self::App),
            // Servers compare the redirect URL when the login begins, and once more with the code.
            ErrorCode::InvalidGrant => Some(Self::CodeOrRedirectUrl),
            ErrorCode::InvalidScope => Some(Self::Scopes),
            ErrorCode::InvalidRequest
            | ErrorCode::UnsupportedGrantType
            | ErrorCode::UnsupportedResponseType
            | ErrorCode::AccessDenied
            | ErrorCode::Unknown => Some(Self::Request),
            ErrorCode::ServerError
            | ErrorCode::TemporarilyUnavailable
            | ErrorCode::InteractionRequired
            | ErrorCode::LoginRequired
            | ErrorCode::ConsentRequired
            | ErrorCode::AccountSelectionRequired => None,
        }
    }

    /// Judges an answer whose words are unknown.
    fn of_status(status: u16) -> Self {
        match status {
            // No such page, or one that takes no such request.
            404 | 405 | 410 => Self::TokenUrl,
            _ => Self::Request,
        }
    }

    fn in_words(error: Option<&str>, detail: Option<&str>) -> Option<Self> {
        let (error, detail) = (error.unwrap_or_default(), detail.unwrap_or_default());
        words::causes().iter().find(|rule| rule.applies(error, detail)).map(|rule| rule.cause)
    }
}

/// One entry of `error_causes` in `config/error_codes.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CauseRule {
    cause: Cause,
    /// The provider's error codes, in lower case.
    #[serde(default)]
    errors: Vec<String>,
    /// Matches the provider's description, or its error code, as some providers put a sentence there.
    #[serde(default)]
    words: Option<Words>,
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Words(Regex);

impl TryFrom<String> for Words {
    type Error = regex::Error;

    fn try_from(pattern: String) -> Result<Self, regex::Error> {
        regex::RegexBuilder::new(&pattern).case_insensitive(true).build().map(Self)
    }
}

impl CauseRule {
    fn applies(&self, error: &str, detail: &str) -> bool {
        let is_error = self.errors.iter().any(|word| error.eq_ignore_ascii_case(word));
        is_error || self.words.as_ref().is_some_and(|Words(regex)| regex.is_match(detail) || regex.is_match(error))
    }
}

#[cfg(test)]
mod tests;
