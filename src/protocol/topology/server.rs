//! Checks that the server is new enough.

use serde_json::Value;

use super::TopologyError;
use crate::jetstream::Nats;
use crate::subject::JETSTREAM_INFO;

/// Oldest nats-server. Earlier ones lose schedules.
const MIN_VERSION: (u64, u64, u64) = (2, 14, 5);
/// Oldest level of the JetStream API. It has message schedules, TTLs and subject transforms with republish.
const MIN_API_LEVEL: u64 = 4;

#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub api_level: u64,
}

/// Checks the server's version, and that this user may use JetStream.
pub(crate) async fn check_server(nats: &Nats) -> Result<Server, TopologyError> {
    let answer = nats.request(JETSTREAM_INFO, async_nats::client::Request::new().payload("".into())).await;
    let answer = answer.map_err(|error| {
        if nats.is_connected() { TopologyError::NoJetStream(Some(error.into())) } else { error.into() }
    })?;
    let account: Value =
        serde_json::from_slice(&answer.payload).map_err(|error| TopologyError::NoJetStream(Some(error.into())))?;
    if account.get("error").is_some() {
        // The account has no JetStream; the server may be new enough.
        return Err(TopologyError::NoJetStream(None));
    }
    let level = account.pointer("/api/level").and_then(Value::as_u64).unwrap_or(0);
    let version = nats.client().server_info().version;
    if is_supported(&version, level) {
        Ok(Server { api_level: level })
    } else {
        Err(TopologyError::TooOld { found: version, wanted: "2.14.5" })
    }
}

fn is_supported(version: &str, api_level: u64) -> bool {
    let numbers: Vec<u64> = version.split(['.', '-']).map_while(|part| part.parse().ok()).collect();
    api_level >= MIN_API_LEVEL
        && matches!(numbers.as_slice(), [major, minor, patch, ..] if (*major, *minor, *patch) >= MIN_VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_below_the_floor_are_too_old() {
        #[track_caller]
        fn check(version: &str, api_level: u64, expected: bool) {
            assert_eq!(is_supported(version, api_level), expected, "{version} {api_level}");
        }
        check("2.15.1", 5, true);
        check("2.14.5", 4, true);
        check("3.0.0-RC.1", 4, true);
        check("2.14.4", 4, false);
        check("2.9.25", 4, false);
        check("2.14.5", 3, false);
        check("2.14", 4, false);
        check("2.x.14.5", 4, false);
        check("", 4, false);
    }
}
