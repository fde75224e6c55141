//! The fields of a stored connection side by side. Serde keeps all fields of an object in memory to fill flattened structs from
//! them; of this struct it keeps the unknown fields alone.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::{Identity, OauthConnection, Status, rfc3339_micros};
use super::{GrantFacts, RefreshFailure, ResultRecord, StoredConnection};
use crate::integration::IssuedAt;
use crate::secret::Secret;

#[derive(Deserialize)]
pub(super) struct Flat {
    #[serde(default)]
    access_token: Option<Secret>,
    token_type: String,
    #[serde(default)]
    refresh_token: Option<Secret>,
    #[serde(default, with = "rfc3339_micros")]
    expiry: Option<Timestamp>,
    #[serde(default)]
    expires_in: Option<i64>,
    #[serde(default, with = "rfc3339_micros")]
    refresh_token_expiry: Option<Timestamp>,
    #[serde(default)]
    sequence: u64,
    subject: String,
    #[serde(default)]
    modified: u64,
    status: Status,
    #[serde(default)]
    status_reason: Option<String>,
    #[serde(default)]
    scope: Option<String>,
    #[serde(default)]
    identity: Option<Identity>,
    #[serde(default)]
    metadata: Map<String, Value>,
    issued_at: IssuedAt,
    #[serde(default)]
    login_id: String,
    #[serde(default)]
    access_token_lifetime: Option<i64>,
    #[serde(default)]
    requested_scope: Option<String>,
    #[serde(default)]
    facts_missing: bool,
    #[serde(default)]
    upgrade_missing: bool,
    #[serde(default)]
    refresh_token_end_is_fixed: bool,
    #[serde(default)]
    reauthorization_warned: Option<Timestamp>,
    #[serde(default)]
    refresh_token_since: Option<Timestamp>,
    #[serde(default)]
    last_result: Option<ResultRecord>,
    #[serde(default)]
    record_event: Option<String>,
    #[serde(default)]
    refresh_failure: Option<RefreshFailure>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl From<Flat> for StoredConnection {
    fn from(flat: Flat) -> Self {
        let connection = OauthConnection {
            access_token: flat.access_token,
            token_type: flat.token_type,
            refresh_token: flat.refresh_token,
            expiry: flat.expiry,
            expires_in: flat.expires_in,
            refresh_token_expiry: flat.refresh_token_expiry,
            sequence: flat.sequence,
            subject: flat.subject,
            modified: flat.modified,
            status: flat.status,
            status_reason: flat.status_reason,
            scope: flat.scope,
            identity: flat.identity,
            metadata: flat.metadata,
        };
        let grant = GrantFacts {
            access_token_lifetime: flat.access_token_lifetime,
            requested_scope: flat.requested_scope,
            facts_missing: flat.facts_missing,
            upgrade_missing: flat.upgrade_missing,
            refresh_token_end_is_fixed: flat.refresh_token_end_is_fixed,
            reauthorization_warned: flat.reauthorization_warned,
            refresh_token_since: flat.refresh_token_since,
            last_result: flat.last_result,
            record_event: flat.record_event,
        };
        let Flat { issued_at, login_id, refresh_failure, unknown, .. } = flat;
        Self { connection, issued_at, login_id, grant, refresh_failure, unknown }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// The form that [`StoredConnection`] is written in.
    #[derive(Debug, Deserialize)]
    struct Nested {
        #[serde(flatten)]
        connection: OauthConnection,
        issued_at: IssuedAt,
        #[serde(default)]
        login_id: String,
        #[serde(flatten)]
        grant: GrantFacts,
        #[serde(default)]
        refresh_failure: Option<RefreshFailure>,
        #[serde(flatten)]
        unknown: Map<String, Value>,
    }

    /// Returns the same text for equal values. Tokens count too, which `Debug` does not print.
    fn text(parsed: Result<StoredConnection, serde_json::Error>) -> Option<String> {
        parsed.ok().map(|stored| format!("{stored:?} {}", serde_json::to_string(&stored).unwrap()))
    }

    fn nested(text: &str) -> Result<StoredConnection, serde_json::Error> {
        let Nested { connection, issued_at, login_id, grant, refresh_failure, unknown } = serde_json::from_str(text)?;
        Ok(StoredConnection { connection, issued_at, login_id, grant, refresh_failure, unknown })
    }

    /// A value of any type for a field, most often one that fits.
    fn value(fitting: Value) -> impl Strategy<Value = Option<Value>> {
        let others =
            [json!(null), json!(""), json!("a"), json!(1), json!(-1), json!(1.5), json!(true), json!([]), json!({})];
        prop_oneof![
            20 => Just(Some(fitting)),
            1 => proptest::sample::select(others.to_vec()).prop_map(Some),
            2 => Just(None),
        ]
    }

    fn fields() -> Vec<(&'static str, Value)> {
        let time = json!("2026-01-01T12:00:00.000000+00:00");
        vec![
            ("access_token", json!("at")),
            ("token_type", json!("Bearer")),
            ("refresh_token", json!("rt")),
            ("expiry", time.clone()),
            ("expires_in", json!(3_600)),
            ("refresh_token_expiry", time.clone()),
            ("sequence", json!(7)),
            ("subject", json!("subject")),
            ("modified", json!(1_700_000_000)),
            ("status", json!("active")),
            ("status_reason", json!("no_config")),
            ("scope", json!("read")),
            ("identity", json!({ "id": "1", "label": "one" })),
            ("metadata", json!({ "a": { "b": [1, "c"] } })),
            ("issued_at", json!({ "token_url": "https://a/token", "client_id": "client" })),
            ("login_id", json!("id")),
            ("access_token_lifetime", json!(60)),
            ("requested_scope", json!("read")),
            ("facts_missing", json!(true)),
            ("upgrade_missing", json!(true)),
            ("refresh_token_end_is_fixed", json!(true)),
            ("reauthorization_warned", time.clone()),
            ("refresh_token_since", time.clone()),
            ("last_result", json!({ "sequence": 5, "modified": 6 })),
            ("record_event", json!("connected")),
            (
                "refresh_failure",
                json!({ "count": 1, "until": time, "status": 503, "reason": "unavailable", "later": 1 }),
            ),
            ("later", json!({ "a": 1 })),
            ("much_later", json!("b")),
        ]
    }

    #[test]
    fn all_fields_are_read_as_from_flattened_structs() {
        let whole: Map<String, Value> = fields().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let whole = Value::from(whole).to_string();
        let read = text(serde_json::from_str(&whole)).expect("the values fit");
        assert_eq!(Some(read), text(nested(&whole)));
    }

    proptest! {
        #[test]
        fn any_fields_are_read_as_from_flattened_structs(
            values in fields().into_iter().map(|(_, fitting)| value(fitting)).collect::<Vec<_>>(),
            twice in proptest::option::weighted(0.1, 0..28_usize),
            start in 0..28_usize,
        ) {
            let mut members: Vec<String> = fields()
                .iter()
                .zip(&values)
                .filter_map(|((name, _), value)| value.as_ref().map(|value| format!("\"{name}\":{value}")))
                .collect();
            if let Some(member) = twice.and_then(|number| members.get(number)).cloned() {
                members.push(member);
            }
            let first = start % members.len().max(1);
            members.rotate_left(first);
            let object = format!("{{{}}}", members.join(","));
            prop_assert_eq!(text(serde_json::from_str(&object)), text(nested(&object)), "{}", object);
        }
    }
}
