//! Compares an existing stream with its declaration.

use async_nats::jetstream::stream::{Config, PersistenceMode};
use serde_json::Value;

use super::TopologyError;

/// Returns true if options differ that `setup` may change. The duplicate window is one of them, because it must not be
/// longer than the maximum age.
pub(super) fn is_resized(wanted: &Config, found: &Config) -> bool {
    let of = |config: &Config| {
        let Config { num_replicas, max_age, duplicate_window, allow_direct, .. } = *config;
        let Config { allow_message_ttl, max_bytes, discard, .. } = config.clone();
        (num_replicas, max_age, duplicate_window, allow_direct, allow_message_ttl, max_bytes, discard)
    };
    of(wanted) != of(found)
}

/// Checks that all options are equal, except those that `setup` may change and descriptions.
pub(super) fn compare(wanted: &Config, found: &Config) -> Result<(), TopologyError> {
    let as_object = |config: &Config| match serde_json::to_value(config) {
        Ok(Value::Object(object)) => object,
        _ => serde_json::Map::new(),
    };
    let found = as_object(found);
    for (field, value) in as_object(wanted) {
        let there = found.get(&field).unwrap_or(&Value::Null);
        let may_differ = matches!(
            field.as_str(),
            "num_replicas"
                | "max_age"
                | "duplicate_window"
                | "allow_direct"
                | "allow_msg_ttl"
                | "max_bytes"
                | "discard"
                // Existing streams keep their mode.
                | "persist_mode"
                | "metadata"
                | "description"
        );
        if !may_differ && *there != value {
            let (found, wanted_value) = (there.to_string(), value.to_string());
            return Err(TopologyError::Incompatible {
                stream: wanted.name.clone(),
                field,
                found,
                wanted: wanted_value,
            });
        }
    }
    Ok(())
}

/// Returns true if the server acknowledges the stream's messages before it writes them.
pub(super) fn is_async(found: &Config) -> bool {
    found.persist_mode == Some(PersistenceMode::Async)
}
