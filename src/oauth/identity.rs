//! The account at the provider that a connection belongs to.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::foreign_text::{has_hidden, without_hidden};
use crate::integration::{Paths, value_at};

/// Longer labels are cut: only people read them.
const MAX_LABEL_CHARS: usize = 200;
/// A longer id counts as missing: cut, it could equal another account's.
const MAX_ID_BYTES: usize = 512;

/// The account at the provider that a connection belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The provider's id of the account. Logins with the same id are of the same account.
    pub id: String,
    /// A name for people, such as an e-mail address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

impl Identity {
    /// Reads an identity from an answer. The first path that leads to a usable value counts.
    pub(crate) fn read(answer: &Value, id: &Paths, label: Option<&Paths>) -> Option<Self> {
        let id = find(answer, id).filter(|id| id.len() <= MAX_ID_BYTES && !has_hidden(id))?;
        let label = label.and_then(|paths| find(answer, paths));
        let shown = |label: String| without_hidden(&label).trim().chars().take(MAX_LABEL_CHARS).collect::<String>();
        Some(Self { id, label: label.map(shown).filter(|label| !label.is_empty()) })
    }
}

/// Returns the first text or integer at one of the paths. An integer beyond 64 bits is parsed without its last digits, so two
/// accounts could look like one.
fn find(answer: &Value, paths: &Paths) -> Option<String> {
    paths.as_slice().iter().find_map(|path| match value_at(answer, path)? {
        Value::String(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
        Value::Number(number) if !number.is_f64() => Some(number.to_string()),
        Value::Number(_) | Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn h13_an_identity_is_a_text_or_a_number_at_one_of_the_paths() {
        #[track_caller]
        fn check(answer: &Value, expected: Option<(&str, Option<&str>)>) {
            let (id, label) =
                (Paths::Many(vec!["user.id".into(), "data.0.id".into()]), Paths::One("user.email".into()));
            let expected = expected.map(|(id, label)| Identity { id: id.to_owned(), label: label.map(str::to_owned) });
            assert_eq!(Identity::read(answer, &id, Some(&label)), expected, "{answer}");
        }
        check(&json!({ "user": { "id": "u-1", "email": "ada@example.com" } }), Some(("u-1", Some("ada@example.com"))));
        check(&json!({ "user": { "id": 17 } }), Some(("17", None)));
        check(&json!({ "data": [{ "id": "t-1" }] }), Some(("t-1", None)));
        check(&json!({ "user": { "id": " ", "email": "x" }, "data": [{ "id": 2 }] }), Some(("2", Some("x"))));
        check(&json!({ "user": { "id": "u-1", "email": "a\u{7}b" } }), Some(("u-1", Some("ab"))));
        check(&json!({ "user": { "id": "u-1", "email": "\u{feff}a\u{200b}b \u{3164}" } }), Some(("u-1", Some("ab"))));
        check(&json!({ "user": { "id": "u-1", "email": "می\u{200c}خواهم" } }), Some(("u-1", Some("می\u{200c}خواهم"))));
        check(&json!({ "user": { "id": "u-1", "email": "\u{3164}" } }), Some(("u-1", None)));
        let beyond_64_bits: Value = serde_json::from_str("100000000000000000001").unwrap();
        for id in [
            beyond_64_bits,
            json!(1.5),
            json!(null),
            json!(true),
            json!(["u-1"]),
            json!({ "id": 1 }),
            json!("a\nb"),
            json!("u-1\u{200b}"),
            json!("x".repeat(513)),
        ] {
            check(&json!({ "user": { "id": id } }), None);
        }
        check(&json!([]), None);
    }
}
