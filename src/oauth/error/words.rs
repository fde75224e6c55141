//! Providers' own words for errors: the rules of a config, then the compiled-in ones.

use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::json;

use super::ErrorCode;
use super::cause::CauseRule;
use crate::integration::{ErrorRule, IntegrationOauthConfig, Refusal};

/// The contents of `config/error_codes.toml`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Words {
    error_codes: Vec<ErrorRule>,
    error_causes: Vec<CauseRule>,
}

/// A test reads the file, so the default is never used.
static COMPILED_IN: LazyLock<Words> =
    LazyLock::new(|| toml::from_str(include_str!("../../../config/error_codes.toml")).unwrap_or_default());

/// Returns the compiled-in causes, in the order in which they apply.
pub(super) fn causes() -> &'static [CauseRule] {
    &COMPILED_IN.error_causes
}

impl ErrorCode {
    /// Returns the code of the first rule that applies to the response. To 429 and 5xx, which are often temporary, only rules
    /// with a `status` apply.
    pub(crate) fn by_rules<T>(config: &IntegrationOauthConfig<T>, refusal: &Refusal<'_>) -> Option<Self> {
        let is_temporary = refusal.status == 429 || refusal.status >= 500;
        first(config, |rule| (rule.status.is_some() || !is_temporary) && rule.applies(refusal))
    }

    /// Returns the code that a callback's `error` means (RFC 6749 §4.1.2.1). A rule applies if it has no status, and the path
    /// `error`.
    pub(crate) fn of_callback<T>(config: &IntegrationOauthConfig<T>, error: &str) -> Self {
        let callback = json!({ "error": error });
        let mapped = first(config, |rule| {
            let path = rule.path.as_deref().filter(|_| rule.status.is_none());
            path.is_some_and(|path| rule.applies_to_value(path, &[&callback]))
        });
        mapped.unwrap_or_else(|| Self::parse(error))
    }
}

fn first<T>(config: &IntegrationOauthConfig<T>, applies: impl Fn(&ErrorRule) -> bool) -> Option<ErrorCode> {
    let mut rules = config.error_codes.iter().chain(&COMPILED_IN.error_codes);
    rules.find(|rule| applies(rule)).map(|rule| ErrorCode::parse(&rule.code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::integration::ERROR_CODES;
    use crate::integration::tests::config;

    #[test]
    fn b6_rules_name_codes_that_are_known() {
        for code in ERROR_CODES {
            assert_eq!(ErrorCode::parse(code).as_str(), code);
        }
        assert!(toml::from_str::<Words>(include_str!("../../../config/error_codes.toml")).is_ok());
        assert!(COMPILED_IN.error_codes.len() > 20 && causes().len() > 8);
        // The rules are valid in a config too.
        for rules in COMPILED_IN.error_codes.chunks(32) {
            assert!(config(&json!({"error_codes": rules})).is_ok(), "{rules:?}");
        }
    }

    #[track_caller]
    fn check(more: &serde_json::Value, error: &str, expected: &str) {
        assert_eq!(ErrorCode::of_callback(&config(more).unwrap(), error).as_str(), expected, "{error}");
    }

    #[test]
    fn b6_a_callbacks_error_is_mapped_like_an_answers() {
        let more = json!({"error_codes": [
            {"status": 400, "path": "error", "equals": "odd", "code": "invalid_grant"},
            {"matches": ".", "code": "invalid_grant"},
            {"path": "error", "equals": "odd", "code": "login_required"},
            {"path": "error", "equals": "user_denied", "code": "consent_required"}]});
        check(&json!({}), "user_denied", "access_denied");
        check(&json!({}), "user_cancelled_login", "access_denied");
        check(&json!({}), "access_denied", "access_denied");
        check(&json!({}), "<script>", "unknown_error");
        check(&more, "odd", "login_required");
        check(&more, "user_denied", "consent_required");
        check(&more, "server_error", "server_error");
    }
}
