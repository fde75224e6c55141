//! The form of a connection's entry in the bucket.

use std::fmt;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::note::Note;

/// A connection's entry in the bucket.
#[derive(Serialize)]
pub(super) struct ConnectionEntry {
    /// Stream sequence of the record.
    pub(super) sequence: u64,
    /// The whole connection.
    pub(super) sealed: String,
    /// The only field that a worker changes alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refresh_failure: Option<Note>,
    /// Copies of the connection's other fields, without its tokens.
    #[serde(flatten)]
    pub(super) copies: Map<String, Value>,
}

/// As serde would derive it, but without a second copy of all fields: each read of a token parses an entry.
impl<'de> Deserialize<'de> for ConnectionEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields)
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = ConnectionEntry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a connection's entry")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<ConnectionEntry, A::Error> {
        let (mut sequence, mut sealed, mut refresh_failure, mut copies) = (None, None, None, Map::new());
        while let Some(name) = fields.next_key::<String>()? {
            match name.as_str() {
                "sequence" => set(&mut sequence, "sequence", &mut fields)?,
                "sealed" => set(&mut sealed, "sealed", &mut fields)?,
                "refresh_failure" => set(&mut refresh_failure, "refresh_failure", &mut fields)?,
                _ => drop(copies.insert(name, fields.next_value()?)),
            }
        }
        Ok(ConnectionEntry {
            sequence: sequence.ok_or_else(|| A::Error::missing_field("sequence"))?,
            sealed: sealed.ok_or_else(|| A::Error::missing_field("sealed"))?,
            refresh_failure: refresh_failure.flatten(),
            copies,
        })
    }
}

fn set<'de, T: Deserialize<'de>, A: MapAccess<'de>>(
    field: &mut Option<T>,
    name: &'static str,
    fields: &mut A,
) -> Result<(), A::Error> {
    if field.is_some() {
        return Err(A::Error::duplicate_field(name));
    }
    *field = Some(fields.next_value()?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Derived {
        sequence: u64,
        sealed: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refresh_failure: Option<Note>,
        #[serde(flatten)]
        copies: Map<String, Value>,
    }

    fn member() -> impl Strategy<Value = String> {
        let fitting = [
            "\"sequence\":7",
            "\"sealed\":\"s\"",
            "\"refresh_failure\":{\"count\":1,\"until\":\"2026-01-01T00:00:00Z\",\"status\":503,\"reason\":\"r\",\"a\":1}",
            "\"status\":\"active\"",
            "\"issued_at\":{\"token_url\":\"https://a\"}",
        ];
        let name = proptest::sample::select(vec!["sequence", "sealed", "refresh_failure", "status", "later"]);
        let value =
            proptest::sample::select(vec!["null", "1", "-1", "1.5", "\"a\"", "[]", "{}", "{\"a\":[1]}", "true"]);
        prop_oneof![
            4 => proptest::sample::select(fitting.to_vec()).prop_map(str::to_owned),
            1 => (name, value).prop_map(|(name, value)| format!("\"{name}\":{value}")),
        ]
    }

    proptest! {
        #[test]
        fn an_entry_is_read_as_its_derived_form(members in prop::collection::vec(member(), 0..8)) {
            let object = format!("{{{}}}", members.join(","));
            let entry = serde_json::from_str::<ConnectionEntry>(&object).map(|it| serde_json::to_string(&it).unwrap());
            let derived = serde_json::from_str::<Derived>(&object).map(|it| serde_json::to_string(&it).unwrap());
            prop_assert_eq!(entry.ok(), derived.ok(), "{}", object);
        }
    }
}
