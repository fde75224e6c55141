//! Hints for people who set up an integration: the setting that a failed login suggests, and the page to correct it on.

use crate::integration::IntegrationOauthConfig;
use crate::oauth::error::{ErrorCode, ErrorKind};
use crate::oauth::token::TokenError;
use crate::provider::profiles::Profiles;
use crate::worker::context::Context;
use crate::worker::provider_calls::NoTokens;

/// Longest hint in characters. An operator's own profile may have texts of any length.
const MAX_CHARS: usize = 1000;

/// A setting that may be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Suspect {
    Client,
    RedirectUrl,
    Scopes,
}

impl Suspect {
    /// Judges the code of a callback or of a token response.
    pub(super) fn of_code(code: ErrorCode) -> Option<Self> {
        match code.kind() {
            ErrorKind::InvalidClient => Some(Self::Client),
            // Servers check the redirect URL when the login begins, and once more with the code.
            ErrorKind::InvalidGrant => Some(Self::RedirectUrl),
            ErrorKind::Other if code == ErrorCode::InvalidRequest => Some(Self::RedirectUrl),
            ErrorKind::Other if code == ErrorCode::InvalidScope => Some(Self::Scopes),
            ErrorKind::Temporary | ErrorKind::Other => None,
        }
    }

    /// Judges the answer to a code.
    pub(super) fn of_answer(error: &NoTokens) -> Option<Self> {
        match error {
            NoTokens::Refused { error: TokenError::Oauth(code), .. } => Self::of_code(*code),
            NoTokens::Refused { error: TokenError::Unauthorized, .. } => Some(Self::Client),
            NoTokens::Request(_) | NoTokens::OutOfTime | NoTokens::Unreachable(_) | NoTokens::Refused { .. } => None,
        }
    }

    /// Tells what to change, and where. Contains nothing that the provider said.
    pub(super) async fn hint(self, context: &Context, config: &IntegrationOauthConfig) -> String {
        let provider = config.provider.as_deref().unwrap_or_default();
        // The profile only adds the page. A config outlives its profile.
        let about = Profiles::new(&context.config.oauth).find(provider).await.ok().map(|profile| profile.about);
        let page = about.as_ref().and_then(|about| about.app_url.as_ref());
        let place = page.map_or_else(|| "where the app is registered".to_owned(), |page| format!("at {page}"));
        let text = match self {
            Self::Client => format!(
                "the provider does not accept this client: compare client_id and client_secret of the config with the \
                 app's {place}"
            ),
            Self::Scopes => {
                format!(
                    "allow the config's scopes to the app {place}, or remove those that it may not have from the config"
                )
            }
            Self::RedirectUrl => {
                let field = about.and_then(|about| about.redirect_url_field);
                let field = field.map(|field| format!(" ({field})")).unwrap_or_default();
                format!(
                    "if a new login fails too, compare the app's redirect URL {place}{field} with that of the config, {}",
                    config.redirect_url
                )
            }
        };
        text.chars().take(MAX_CHARS).collect()
    }
}
