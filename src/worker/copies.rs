//! Refuses copies of commands that have left the queue.
//!
//! The server refuses a second message with the same message id, but a server that was restarted knows the ids of those
//! messages only that its streams still hold. So the first message of a command that a worker takes claims the command's
//! message id in the bucket of nonces, and any other message with this id is a copy. A claim outlives every order that is in
//! time.
//!
//! When the bucket is full, commands run without a claim: one tenant's signed requests may fill it, and must not stop the
//! deletions of others. The server's own check remains.

use async_nats::HeaderMap;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use tracing::warn;

use crate::command::{MAX_AGE, Work};
use crate::jetstream::NatsError;
use crate::jetstream::kv::{self, Swapped};
use crate::subject::NONCES;
use crate::worker::context::Context;
use crate::worker::hold::HOLD;
use crate::worker::job::Job;

const _: () = assert!(MAX_AGE.as_secs() < HOLD.as_secs());

/// Why a copy is given up.
pub(super) const IS_COPY: &str = "the command was taken from the queue before: it is a copy";

/// Returns true if the command's message is a copy of one that a worker has taken. A redelivery is not a copy.
///
/// An `exchange` needs no claim, because its login is consumed once. A refresh without a caller comes from a worker, and no
/// call repeats it. A refresh for a caller needs none where workers notice each restart of the server: they then send no refresh
/// token for longer than an order is in time.
pub(super) async fn is_copy(context: &Context, job: &Job, work: &Work) -> Result<bool, NatsError> {
    match work {
        Work::Exchange { .. } | Work::Refresh { actor: None, .. } => return Ok(false),
        Work::Refresh { .. } if context.restarts.are_tracked() => return Ok(false),
        Work::Refresh { .. } | Work::Revoke { .. } | Work::Put { .. } | Work::Delete { .. } => {}
    }
    let key = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(format!("command\n{}", job.message_id)));
    // A queue that lost its last messages assigns their sequences again, so the time is part of the claim.
    let claim = format!("{} {}", job.queue_sequence, job.queued);
    let at = kv::At { bucket: NONCES, key: &key, replaces: 0 };
    let write = kv::Write::Put { headers: HeaderMap::new(), value: claim.clone().into() };
    match kv::swap(&context.nats, at, write).await {
        Ok(Swapped::Done) => Ok(false),
        Ok(Swapped::Lost(first)) => Ok(first.is_none_or(|first| first.payload != claim.as_bytes())),
        Err(error) if error.is_lack_of_space() => {
            warn!("no claim for the command: {error}");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
