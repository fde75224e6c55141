//! Values that are sealed as a whole.
//!
//! The field `sealed` opens to JSON with everything that a worker acts on. The clear fields beside it are copies for
//! operators. A worker compares each copy with its original after it has opened the value, so that a copy that was changed by
//! hand is an error, never a decision.

use std::fmt;

use serde::Deserializer;
use serde::de::{Deserialize, DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::{Store, StoreError};
use crate::seal::SealContext;
use crate::secret::Secret;

impl Store {
    pub(super) fn seal_whole(&self, context: SealContext<'_>, whole: &Secret) -> Result<String, StoreError> {
        self.keyring.seal(context, whole).map_err(StoreError::seal(name(context)))
    }

    /// Opens a value and compares its copies.
    ///
    /// # Errors
    /// [`StoreError::Changed`] if a copy differs from its original.
    pub(super) fn open_whole(
        &self,
        context: SealContext<'_>,
        sealed: &str,
        copies: &Map<String, Value>,
    ) -> Result<Secret, StoreError> {
        let whole = self.keyring.open(context, sealed).map_err(StoreError::seal(name(context)))?;
        match changed_copy(copies, whole.expose()) {
            None => Ok(whole),
            Some(field) => Err(StoreError::Changed { what: name(context), field }),
        }
    }
}

fn name(context: SealContext<'_>) -> String {
    format!("{}/{}", context.bucket, context.key)
}

/// Returns the name of a copy that differs from its original in `whole`.
fn changed_copy(copies: &Map<String, Value>, whole: &str) -> Option<String> {
    if are_equal(Originals(copies), whole) {
        return None;
    }
    let differs = |(name, copy): &(&String, &Value)| {
        let copy = Map::from_iter([((*name).clone(), (*copy).clone())]);
        !are_equal(Originals(&copy), whole)
    };
    copies.iter().find(differs).map(|(name, _)| name.clone())
}

fn are_equal(originals: Originals<'_>, whole: &str) -> bool {
    serde_json::Deserializer::from_str(whole).deserialize_map(originals).is_ok_and(|are_equal| are_equal)
}

/// Compares the fields of an object with their copies. Skips fields without a copy: secrets are not even parsed.
struct Originals<'a>(&'a Map<String, Value>);

impl<'de> Visitor<'de> for Originals<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<bool, A::Error> {
        let (mut found, mut are_equal) = (0, true);
        while let Some(name) = fields.next_key::<String>()? {
            if let Some(copy) = self.0.get(&name) {
                found += 1;
                are_equal &= fields.next_value_seed(Original(copy))?;
            } else {
                fields.next_value::<IgnoredAny>()?;
            }
        }
        Ok(are_equal && found == self.0.len())
    }
}

/// Compares a field with its copy.
struct Original<'a>(&'a Value);

impl<'de> DeserializeSeed<'de> for Original<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, field: D) -> Result<bool, D::Error> {
        if let Value::Object(copies) = self.0 {
            field.deserialize_map(Originals(copies))
        } else {
            Value::deserialize(field).map(|original| original == *self.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn h7_a_changed_copy_is_named() {
        #[track_caller]
        fn check(copies: &Value, expected: Option<&str>) {
            let whole = json!({
                "url": "https://a", "secret": "s", "number": 1, "list": [1, { "a": 2 }], "none": null,
                "object": { "a": { "b": 1 }, "secret": "s" }
            });
            let copies = copies.as_object().unwrap();
            assert_eq!(changed_copy(copies, &whole.to_string()).as_deref(), expected, "{copies:?}");
        }
        check(&json!({}), None);
        check(&json!({ "url": "https://a", "number": 1, "list": [1, { "a": 2 }], "none": null }), None);
        check(&json!({ "object": { "a": { "b": 1 } } }), None);
        check(&json!({ "object": {} }), None);
        check(&json!({ "url": "https://b" }), Some("url"));
        check(&json!({ "url": { "a": 1 } }), Some("url"));
        check(&json!({ "number": "1" }), Some("number"));
        check(&json!({ "list": [1, {}] }), Some("list"));
        check(&json!({ "none": false }), Some("none"));
        check(&json!({ "object": { "a": { "b": 2 } } }), Some("object"));
        check(&json!({ "object": { "a": { "c": 1 } } }), Some("object"));
        check(&json!({ "object": "a" }), Some("object"));
        check(&json!({ "added": null }), Some("added"));
    }
}
