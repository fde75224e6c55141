//! Section `nats.max_bytes`: the most bytes that each stream and bucket stores.

use serde::Deserialize;

use super::form;
use crate::subject::{
    API_KEYS, CONFIGS, CONNECTIONS, META, NONCES, OAUTH, OAUTH_COMMANDS, OAUTH_DEAD, OAUTH_EVENTS, STATES, kv_stream,
};

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaxBytes {
    #[serde(deserialize_with = "form::bytes")]
    pub oauth: i64,
    #[serde(deserialize_with = "form::bytes")]
    pub commands: i64,
    #[serde(deserialize_with = "form::bytes")]
    pub events: i64,
    #[serde(deserialize_with = "form::bytes")]
    pub dead: i64,
    #[serde(deserialize_with = "form::bytes")]
    pub connections: i64,
    #[serde(deserialize_with = "form::bytes")]
    pub states: i64,
    #[serde(deserialize_with = "form::bytes")]
    pub configs: i64,
    #[serde(deserialize_with = "form::bytes")]
    pub api_keys: i64,
    #[serde(deserialize_with = "form::bytes")]
    pub meta: i64,
    #[serde(deserialize_with = "form::bytes")]
    pub nonces: i64,
}

/// The limit of one stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamLimit {
    /// Name of the setting.
    pub setting: &'static str,
    pub bytes: i64,
}

impl MaxBytes {
    /// The keys of the section.
    pub(crate) const NAMES: [&str; 10] =
        ["oauth", "commands", "events", "dead", "connections", "states", "configs", "api_keys", "meta", "nonces"];

    /// The same limit for each.
    pub(crate) fn of_each(bytes: i64) -> Self {
        Self {
            oauth: bytes,
            commands: bytes,
            events: bytes,
            dead: bytes,
            connections: bytes,
            states: bytes,
            configs: bytes,
            api_keys: bytes,
            meta: bytes,
            nonces: bytes,
        }
    }

    /// Returns the limit of a stream, by its name on the server. `OAUTH_SCHEDULE` has none: it holds one message per
    /// connection.
    pub(crate) fn of(&self, stream: &str) -> Option<StreamLimit> {
        let Self { oauth, commands, events, dead, connections, states, configs, api_keys, meta, nonces } = *self;
        let limits = [
            (OAUTH.to_owned(), "nats.max_bytes.oauth", oauth),
            (OAUTH_COMMANDS.to_owned(), "nats.max_bytes.commands", commands),
            (OAUTH_EVENTS.to_owned(), "nats.max_bytes.events", events),
            (OAUTH_DEAD.to_owned(), "nats.max_bytes.dead", dead),
            (kv_stream(CONNECTIONS), "nats.max_bytes.connections", connections),
            (kv_stream(STATES), "nats.max_bytes.states", states),
            (kv_stream(CONFIGS), "nats.max_bytes.configs", configs),
            (kv_stream(API_KEYS), "nats.max_bytes.api_keys", api_keys),
            (kv_stream(META), "nats.max_bytes.meta", meta),
            (kv_stream(NONCES), "nats.max_bytes.nonces", nonces),
        ];
        limits.into_iter().find_map(|(name, setting, bytes)| (name == stream).then_some(StreamLimit { setting, bytes }))
    }
}
