//! The content of a gateway's call.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::command::{Credential, Origin};

/// A gateway's question to a worker. Everything is in the payload: a worker receives no headers.
#[derive(Debug, Deserialize)]
pub(crate) struct Question {
    #[serde(default)]
    pub(crate) credential: Option<Credential>,
    #[serde(default)]
    pub(crate) origin: Origin,
    /// W3C trace context.
    #[serde(default)]
    pub(crate) traceparent: Option<String>,
    /// The call's own fields, as JSON. Kept as text, because a signed request is compared with it.
    pub(crate) body: Box<RawValue>,
}

/// A [`Question`] to be written.
#[derive(Serialize)]
struct SentQuestion<'a> {
    credential: Option<&'a Credential>,
    origin: &'a Origin,
    traceparent: Option<&'a str>,
    body: &'a Value,
}

impl Question {
    /// Returns the text of a question.
    #[must_use]
    pub(crate) fn text(
        credential: Option<&Credential>,
        origin: &Origin,
        traceparent: Option<&str>,
        body: &Value,
    ) -> String {
        let sent = SentQuestion { credential, origin, traceparent, body };
        // Every part has a JSON form.
        serde_json::to_string(&sent).unwrap_or_default()
    }
}
