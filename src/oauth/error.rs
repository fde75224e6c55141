//! Error codes from a fixed list, so that no text of a provider reaches a caller. Operators see its cleaned text
//! ([`ProviderAnswer`](super::ProviderAnswer)).

mod cause;
mod words;

use std::fmt;

pub(crate) use self::cause::Cause;

/// Error codes grouped by how tokenbus reacts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    /// The authorization code or refresh token is used, expired, revoked, or issued to another client.
    InvalidGrant,
    /// Client authentication failed, or the client may not use this grant type.
    InvalidClient,
    /// A later attempt may succeed.
    Temporary,
    Other,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $kind:ident;)*) => {
        /// A code of RFC 6749 §4.1.2.1 and §5.2, or of OpenID Connect Core §3.1.2.6.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub(crate) enum ErrorCode { $($(#[$doc])* $variant,)* }

        impl ErrorCode {
            #[must_use]
            pub(crate) fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            #[must_use]
            pub(crate) fn kind(self) -> ErrorKind {
                match self { $(Self::$variant => ErrorKind::$kind,)* }
            }

            fn standard(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

codes! {
    InvalidRequest = "invalid_request", Other;
    InvalidClient = "invalid_client", InvalidClient;
    InvalidGrant = "invalid_grant", InvalidGrant;
    /// The client is not authorized to use this grant type.
    UnauthorizedClient = "unauthorized_client", InvalidClient;
    UnsupportedGrantType = "unsupported_grant_type", Other;
    UnsupportedResponseType = "unsupported_response_type", Other;
    /// A scope is unknown, malformed or not allowed.
    InvalidScope = "invalid_scope", Other;
    /// The resource owner or the server denied the request.
    AccessDenied = "access_denied", Other;
    ServerError = "server_error", Temporary;
    /// The server is overloaded or under maintenance.
    TemporarilyUnavailable = "temporarily_unavailable", Temporary;
    // OpenID Connect: the end user has to act, log in, consent, or choose an account.
    InteractionRequired = "interaction_required", Other;
    LoginRequired = "login_required", Other;
    ConsentRequired = "consent_required", Other;
    AccountSelectionRequired = "account_selection_required", Other;
    /// Every code that is not in this list.
    Unknown = "unknown_error", Other;
}

impl ErrorCode {
    /// Parses a code of the RFCs.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Self {
        Self::standard(text).unwrap_or(Self::Unknown)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b6_codes_come_from_a_fixed_list() {
        for (text, code) in [
            ("invalid_grant", "invalid_grant"),
            ("invalid_client", "invalid_client"),
            ("unknown_error", "unknown_error"),
            ("<script>", "unknown_error"),
            ("", "unknown_error"),
        ] {
            assert_eq!(ErrorCode::parse(text).as_str(), code, "{text}");
        }
        assert_eq!(ErrorCode::parse("server_error").kind(), ErrorKind::Temporary);
    }
}
