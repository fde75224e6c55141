//! Which servers will do.

use serde_json::Value;

use super::TopologyError;
use crate::jetstream::Nats;
use crate::subject::JETSTREAM_INFO;

/// Oldest server that will do: below it, schedules were lost.
const VERSION_FLOOR: (u64, u64, u64) = (2, 14, 5);
/// Oldest JetStream API that will do: message schedules, TTLs and transforms with republish.
const API_FLOOR: u64 = 4;

/// What the server is.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// Its version.
    pub version: String,
    /// Level of its JetStream API.
    pub api_level: u64,
}

/// Whether the server will do.
///
/// # Errors
/// [`TopologyError::NoJetStream`], [`TopologyError::TooOld`], or that it is away.
pub(crate) async fn check_server(nats: &Nats) -> Result<Server, TopologyError> {
    let answer = nats.request(JETSTREAM_INFO, async_nats::client::Request::new().payload("".into())).await;
    let answer = answer.map_err(|error| if nats.is_connected() { TopologyError::NoJetStream } else { error.into() })?;
    let account: Value = serde_json::from_slice(&answer.payload).map_err(|_| TopologyError::NoJetStream)?;
    if account.get("error").is_some() {
        // The account has none: the version of the server is not what is wrong.
        return Err(TopologyError::NoJetStream);
    }
    let level = account.pointer("/api/level").and_then(Value::as_u64).unwrap_or(0);
    let version = nats.client().server_info().version;
    if will_do(&version, level) {
        Ok(Server { version, api_level: level })
    } else {
        Err(TopologyError::TooOld { found: version, wanted: "2.14.5" })
    }
}

fn will_do(version: &str, api_level: u64) -> bool {
    let numbers: Vec<u64> = version.split(['.', '-']).map_while(|part| part.parse().ok()).collect();
    api_level >= API_FLOOR
        && matches!(numbers.as_slice(), [major, minor, patch, ..] if (*major, *minor, *patch) >= VERSION_FLOOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_below_the_floor_are_too_old() {
        #[track_caller]
        fn check(version: &str, api_level: u64, expected: bool) {
            assert_eq!(will_do(version, api_level), expected, "{version} {api_level}");
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
