//! Advice for the reason codes in events and answers.

/// Adds advice to a reason code. Returns any other text unchanged.
pub(super) fn explain(reason: &str) -> String {
    match advice(reason) {
        Some(advice) => format!("{reason}: {advice}"),
        None => reason.to_owned(),
    }
}

fn advice(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "invalid_grant" => "the provider no longer accepts this code or refresh token; log in again",
        "invalid_client" | "unauthorized_client" | "client_authentication" => {
            "the provider rejects the client; correct client id, secret or key in the integration's config"
        }
        "invalid_scope" => "the provider does not grant these scopes; correct them in the integration's config",
        "access_denied"
        | "login_required"
        | "consent_required"
        | "interaction_required"
        | "account_selection_required" => "the person did not grant access; log in again",
        "config_changed" => "token URL or client id changed since the login; log in again",
        "rate_limited" => "rate limited by the provider; refreshes are retried automatically",
        "provider_error"
        | "provider_unreachable"
        | "unreadable_answer"
        | "server_error"
        | "temporarily_unavailable" => {
            "the provider fails, or its URL in the config is wrong; refreshes are retried automatically"
        }
        "exchange_interrupted" => "a worker stopped during the login; log in again",
        "refresh_interrupted" => "a worker stopped during the refresh; it is retried automatically",
        "unknown_error" => "the provider sent an error code of its own; its description says what to do",
        "answer_too_large" => "the provider's answer is over a limit; check the token URL in the config",
        "given_up" => "a worker failed at the command too often; its log says why; refreshes are scheduled again",
        "expired" => "the access token has expired and there is no refresh token; log in again",
        "no_refresh_token" => "the provider issued no refresh token; log in again before the token expires",
        "refresh_failing" => "refreshes failed for too long; the failures before this one say why; log in again",
        "issuer_mismatch" => "the callback names another issuer than the config; do not trust it",
        "superseded" => "a newer login or a deletion came first",
        "no_config" => "the integration has no config; refreshes resume when it has one again",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_get_advice_and_texts_stay() {
        assert_eq!(explain("superseded"), "superseded: a newer login or a deletion came first");
        assert_eq!(explain("log in again"), "log in again");
    }
}
