//! Rules that map a provider's own words to codes of RFC 6749.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{template, value_at};

/// The codes that a rule may name: RFC 6749 §4.1.2.1 and §5.2, OpenID Connect Core §3.1.2.6.
pub(crate) const ERROR_CODES: [&str; 14] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "unsupported_response_type",
    "invalid_scope",
    "access_denied",
    "server_error",
    "temporarily_unavailable",
    "interaction_required",
    "login_required",
    "consent_required",
    "account_selection_required",
];

/// One entry of a config's `error_codes`. All of its conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ErrorRule {
    /// The response's status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Dot path of the value to compare; without it the whole body is compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// A text, number or boolean; `1` and `"1"` are equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub equals: Option<Value>,
    /// Regular expression, found anywhere in the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matches: Option<String>,
    /// One of [`ERROR_CODES`].
    pub code: String,
}

/// The parts of a response without tokens that rules compare.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refusal<'a> {
    pub status: u16,
    pub body: &'a str,
    /// Objects in which paths are looked up.
    pub objects: &'a [&'a Value],
}

impl ErrorRule {
    pub(crate) fn applies(&self, refusal: &Refusal<'_>) -> bool {
        let Self { status, path, .. } = self;
        status.is_none_or(|status| status == refusal.status)
            && match path {
                Some(path) => self.applies_to_value(path, refusal.objects),
                None => self.applies_to_text(refusal.body.trim()),
            }
    }

    /// Does the same for a single value at that path, without a response around it.
    pub(crate) fn applies_to_value(&self, path: &str, objects: &[&Value]) -> bool {
        let values = objects.iter().filter_map(|object| value_at(object, path));
        values.flat_map(texts_of).any(|text| self.applies_to_text(&text))
    }

    fn applies_to_text(&self, text: &str) -> bool {
        let is_equal = self.equals.as_ref().is_none_or(|expected| plain_text(expected).as_deref() == Some(text));
        let is_match = |pattern: &String| template::bounded_regex(pattern).is_ok_and(|regex| regex.is_match(text));
        is_equal && self.matches.as_ref().is_none_or(is_match)
    }
}

/// Returns the texts of a value. Some providers put their words into an object, as its `code` or `type`.
fn texts_of(value: &Value) -> Vec<String> {
    match value.as_object() {
        Some(fields) => ["code", "type"].into_iter().filter_map(|key| plain_text(fields.get(key)?)).collect(),
        None => plain_text(value).into_iter().collect(),
    }
}

fn plain_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(is_true) => Some(is_true.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(rule: &Value, status: u16, body: &str, expected: bool) {
        let mut rule = rule.clone();
        rule["code"] = json!("invalid_grant");
        let rule: ErrorRule = serde_json::from_value(rule).unwrap();
        let object = serde_json::from_str::<Value>(body).unwrap_or_default();
        let applies = rule.applies(&Refusal { status, body, objects: &[&object] });
        assert_eq!(applies, expected, "{rule:?} {status} {body}");
    }

    #[test]
    fn b6_all_conditions_of_a_rule_hold() {
        let dead = r#"{"status":"BAD_REFRESH_TOKEN","message":"gone"}"#;
        check(&json!({"path": "status", "equals": "BAD_REFRESH_TOKEN"}), 400, dead, true);
        check(&json!({"path": "status", "equals": "bad_refresh_token"}), 400, dead, false);
        check(&json!({"path": "message", "equals": "BAD_REFRESH_TOKEN"}), 400, dead, false);
        check(&json!({"status": 400, "path": "status", "matches": "^BAD_"}), 400, dead, true);
        check(&json!({"status": 401, "path": "status", "matches": "^BAD_"}), 400, dead, false);
        check(&json!({"path": "status"}), 400, dead, true);
        check(&json!({"path": "state"}), 400, dead, false);
        let object = r#"{"error":{"type":"OAuthException","code":190,"error_subcode":463}}"#;
        for rule in [
            json!({"path": "error.code", "equals": 190}),
            json!({"path": "error.code", "equals": "190"}),
            json!({"path": "error", "equals": 190}),
            json!({"path": "error", "matches": "^OAuth"}),
        ] {
            check(&rule, 400, object, true);
        }
        check(&json!({"path": "error", "equals": 463}), 400, object, false);
    }

    #[test]
    fn b6_without_a_path_the_whole_body_is_compared() {
        check(&json!({"equals": "Unauthorized"}), 401, "Unauthorized\n", true);
        check(&json!({"equals": "Unauthorized"}), 401, "Unauthorized: x", false);
        check(&json!({"status": 401, "matches": "(?i)token .*expired"}), 401, "<p>Token has Expired</p>", true);
        check(&json!({"status": 410}), 410, "", true);
        check(&json!({"status": 410}), 400, "", false);
        check(&json!({"path": "error", "matches": "."}), 401, "Unauthorized", false);
    }
}
