//! The origin of a request, as the gateway saw it.

use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize};

/// Travels with each call and each command. Workers believe the gateway: a key's networks and the addresses in events are
/// as true as the gateways are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The client's address, after trusted proxies. `None` for the command line and for nodes on the bus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_address: Option<IpAddr>,
    /// The request's id in the gateway's log and in the answer's `X-Request-Id`. A text of another form is dropped: a hostile
    /// gateway could write anything into events with it.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "plain_request_id")]
    pub request_id: Option<String>,
}

/// Longest request id in bytes. It is in logs and events.
const MAX_REQUEST_ID_BYTES: usize = 64;

/// Returns true if a request id is short plain text.
#[must_use]
pub(crate) fn is_plain_request_id(id: &str) -> bool {
    (1..=MAX_REQUEST_ID_BYTES).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

fn plain_request_id<'de, D: Deserializer<'de>>(text: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(text)?.filter(|id| is_plain_request_id(id)))
}

impl Origin {
    /// The part of the origin that events show: the client's address only if the settings say so.
    #[must_use]
    pub(crate) fn for_events(&self, shows_address: bool) -> Self {
        Self { client_address: self.client_address.filter(|_| shows_address), request_id: self.request_id.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e9_a_request_id_of_another_form_is_dropped() {
        let id = |text: &str| {
            let origin = serde_json::json!({ "request_id": text });
            serde_json::from_value::<Origin>(origin).expect("an origin").request_id
        };
        assert_eq!(id("a.B-7_"), Some("a.B-7_".to_owned()));
        for text in ["", "a\nb", "\u{1b}[31m", "a b", &"x".repeat(65)] {
            assert_eq!(id(text), None, "{text:?}");
        }
    }
}
