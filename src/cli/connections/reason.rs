//! What people can do about a reason that is a code, as it stands in events and answers.

/// The code with what it means, or the text as it is.
pub(super) fn explained(reason: &str) -> String {
    match meaning(reason) {
        Some(meaning) => format!("{reason}: {meaning}"),
        None => reason.to_owned(),
    }
}

fn meaning(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "invalid_grant" => "the provider takes this code or refresh token no more; log in again",
        "invalid_client" | "unauthorized_client" | "client_authentication" => {
            "the provider refuses the client; correct client id, secret or key in the integration's config"
        }
        "invalid_scope" => "the provider does not grant these scopes; correct them in the integration's config",
        "access_denied"
        | "login_required"
        | "consent_required"
        | "interaction_required"
        | "account_selection_required" => "whoever was asked did not allow it; log in again",
        "config_changed" => "token URL or client id are others than those of the login; log in again",
        "rate_limited" => "the provider asks for fewer requests; a refresh is tried again by itself",
        "provider_error"
        | "provider_unreachable"
        | "unreadable_answer"
        | "server_error"
        | "temporarily_unavailable" => {
            "the provider is not well, or its URL in the config is wrong; a refresh is tried again by itself"
        }
        "exchange_interrupted" => "a worker ended in the middle of the login; log in again",
        "refresh_interrupted" => "a worker ended in the middle of the refresh; it is tried again by itself",
        "issuer_mismatch" => "the callback came from another issuer than the config names; do not trust it",
        "superseded" => "another login was quicker",
        "no_config" => "the integration has no config; put it back, and the refreshes go on",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_explained_and_texts_left_as_they_are() {
        assert_eq!(explained("superseded"), "superseded: another login was quicker");
        assert_eq!(explained("log in again"), "log in again");
    }
}
