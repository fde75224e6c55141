//! Sealed calls of gateways, and their answers.
//!
//! - A gateway draws a session key, and seals it to the workers' public curve key. That sealed form goes with each call, so
//!   any worker can open the call. A second client with the gateways' NATS user, and a trace of the server, see neither
//!   questions nor answers.
//! - Call and answer are bound to their direction, the call's subject, its id and the time. An answer to a replayed call opens
//!   only for its first sender.
//! - A call that is more than [`MAX_DRIFT`] away from the bus's time is refused, so a recorded call is useless soon after.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::seal::{SealError, SharedKey};

/// Largest difference between a call's time and the bus's, in either direction.
pub(crate) const MAX_DRIFT: Duration = Duration::from_secs(30);

/// Longest name of a gateway's client, in bytes.
const CLIENT_BYTES: usize = 16;

/// A call as it travels.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SealedCall {
    /// 128 random bits in base64url.
    pub(crate) id: String,
    /// The bus's time, in milliseconds since 1970.
    pub(crate) time: i64,
    /// The session key, sealed to the workers.
    pub(crate) session: String,
    /// The question.
    pub(crate) sealed: String,
    /// As in [`CallClient`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    client: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    unsent: u32,
}

/// The client that a gateway makes a call for. Not sealed, because workers share their time among clients before they open a call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct CallClient {
    /// A keyed hash that only this gateway knows. Empty for a call of the gateway itself.
    #[serde(default, rename = "client")]
    pub(crate) name: String,
    /// Calls of the client that the gateway has refused by itself, since the last one that it sent.
    #[serde(default)]
    pub(crate) unsent: u32,
}

/// An answer as it travels.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CallAnswer {
    Sealed {
        /// The bus's time, in milliseconds since 1970.
        time: i64,
        sealed: String,
    },
    /// The worker has not opened the call. Only workers can answer calls, so this needs no seal.
    Refused(Refusal),
}

/// Why a worker does not open a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Refusal {
    #[error("the call is sealed to another curve key than the workers'")]
    UnknownKey,
    #[error("the call's time is too far from the bus's")]
    OutOfTime,
    #[error("the call cannot be read; gateway and worker may be of different releases")]
    Unreadable,
    #[error("this worker has too many calls; try again")]
    Busy,
}

/// The answer to the one call that is not sealed, `seal-key`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SealKey {
    /// Public curve key of the workers.
    pub(crate) seal_to: String,
    /// The bus's time, in milliseconds since 1970.
    pub(crate) time: i64,
}

#[derive(Debug, Clone, Copy)]
enum Direction {
    Call,
    Answer,
}

fn associated_data(direction: Direction, call: &str, id: &str, time: i64) -> Vec<u8> {
    let direction = match direction {
        Direction::Call => "call",
        Direction::Answer => "answer",
    };
    [direction, call, id, &time.to_string()].join("\0").into_bytes()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl SealedCall {
    /// Seals a question. `session` is the key's sealed form, `call` the call's subject.
    pub(crate) fn seal(
        key: &SharedKey,
        session: &str,
        call: &str,
        (id, time): (String, Timestamp),
        question: &[u8],
    ) -> Result<Self, SealError> {
        let time = time.as_millisecond();
        let sealed = key.seal(&associated_data(Direction::Call, call, &id, time), question)?;
        Ok(Self { id, time, session: session.to_owned(), sealed, client: String::new(), unsent: 0 })
    }

    pub(crate) fn with_client(self, CallClient { name, unsent }: CallClient) -> Self {
        Self { client: name, unsent, ..self }
    }

    /// Returns the client of a call that is not opened; nothing for a call that names none, or cannot be read.
    pub(crate) fn client_of(payload: &[u8]) -> CallClient {
        let client = serde_json::from_slice::<CallClient>(payload).unwrap_or_default();
        if client.name.len() <= CLIENT_BYTES { client } else { CallClient::default() }
    }

    /// Opens the question. `key` is the session's.
    pub(crate) fn open(&self, key: &SharedKey, call: &str) -> Result<Zeroizing<Vec<u8>>, SealError> {
        key.open(&associated_data(Direction::Call, call, &self.id, self.time), &self.sealed)
    }

    /// The bus's time at which the call was sent, if it is one.
    pub(crate) fn sent(&self) -> Option<Timestamp> {
        Timestamp::from_millisecond(self.time).ok()
    }

    /// Returns true if the call's time is near enough to the bus's.
    pub(crate) fn is_in_time(&self, now: Timestamp) -> bool {
        self.sent().is_some_and(|sent| {
            now.duration_since(sent).abs() <= SignedDuration::try_from(MAX_DRIFT).unwrap_or_default()
        })
    }

    /// Seals the answer to this call.
    pub(crate) fn answer(
        &self,
        key: &SharedKey,
        call: &str,
        now: Timestamp,
        answer: &[u8],
    ) -> Result<CallAnswer, SealError> {
        let time = now.as_millisecond();
        let sealed = key.seal(&associated_data(Direction::Answer, call, &self.id, time), answer)?;
        Ok(CallAnswer::Sealed { time, sealed })
    }

    /// Opens the answer to this call.
    pub(crate) fn open_answer(
        &self,
        key: &SharedKey,
        call: &str,
        (time, sealed): (i64, &str),
    ) -> Result<Zeroizing<Vec<u8>>, SealError> {
        key.open(&associated_data(Direction::Answer, call, &self.id, time), sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "a call";

    #[test]
    fn h6_a_call_opens_only_as_sent_and_an_answer_only_for_its_call() {
        let (key, now) = (SharedKey::random(), Timestamp::from_second(1_000_000).unwrap());
        let seal = |id: &str| SealedCall::seal(&key, "session", TOKEN, (id.to_owned(), now), b"question").unwrap();
        let call = seal("one");
        assert_eq!(&*call.open(&key, TOKEN).unwrap(), b"question");
        assert!(call.open(&key, "another call").is_err());
        assert!(SealedCall { id: "two".to_owned(), ..seal("one") }.open(&key, TOKEN).is_err());
        assert!(SealedCall { time: call.time + 1, ..seal("one") }.open(&key, TOKEN).is_err());
        let Ok(CallAnswer::Sealed { time, sealed }) = call.answer(&key, TOKEN, now, b"answer") else { panic!() };
        assert_eq!(&*call.open_answer(&key, TOKEN, (time, &sealed)).unwrap(), b"answer");
        assert!(seal("two").open_answer(&key, TOKEN, (time, &sealed)).is_err());
        assert!(call.open_answer(&key, TOKEN, (time + 1, &sealed)).is_err());
    }

    #[test]
    fn the_client_of_a_call_is_read_without_its_key() {
        #[track_caller]
        fn check(payload: &str, client: &str, unsent: u32) {
            let expected = CallClient { name: client.to_owned(), unsent };
            assert_eq!(SealedCall::client_of(payload.as_bytes()), expected, "{payload}");
        }
        check(r#"{"id":"x","time":1,"session":"s","sealed":"t","client":"0a1b","unsent":7}"#, "0a1b", 7);
        check(r#"{"id":"x","time":1,"session":"s","sealed":"t","client":"0a1b"}"#, "0a1b", 0);
        check(r#"{"id":"x","time":1,"session":"s","sealed":"t"}"#, "", 0);
        check(r#"{"client":"0123456789abcdefg","unsent":7}"#, "", 0);
        check("no call", "", 0);
    }

    #[test]
    fn h6_a_call_is_refused_away_from_its_time() {
        let key = SharedKey::random();
        let at = |second| Timestamp::from_second(second).unwrap();
        let call = SealedCall::seal(&key, "", TOKEN, (String::new(), at(1_000)), b"").unwrap();
        for (now, expected) in [(1_000, true), (970, true), (1_030, true), (969, false), (1_031, false)] {
            assert_eq!(call.is_in_time(at(now)), expected, "{now}");
        }
    }
}
