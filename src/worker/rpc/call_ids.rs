//! Ids that a call chooses for what it makes: a pending login, an API key, a command.
//!
//! A gateway's call derives them from its own id, so a recorded call that is sent again makes nothing new: its entry exists,
//! or the server knows its command's message id. The session key takes part, so only workers and the calling gateway can
//! compute them.

use jiff::Timestamp;

use crate::auth::VerifiedCaller;
use crate::seal::{SealError, SharedKey};
use crate::system;
use crate::worker::context::CallPermit;

/// A checked call that may run.
#[derive(Clone, Copy)]
pub(super) struct Checked<'a> {
    pub(super) caller: &'a VerifiedCaller,
    pub(super) ids: &'a CallIds,
    pub(super) permit: &'a CallPermit,
}

/// Where a call's ids come from.
pub(super) enum CallIds {
    /// A node's call: only the account itself can send it again.
    Random,
    /// A gateway's call, and the time at which it was sent. The gateway's clock may lag the bus's, and does not lead.
    Derived { session: SharedKey, call_id: String, sent: Timestamp },
}

impl CallIds {
    /// Returns 256 bits for this purpose.
    pub(super) fn random(&self, purpose: &str) -> Result<[u8; 32], SealError> {
        match self {
            Self::Random => Ok(system::random()),
            Self::Derived { session, call_id, .. } => session.derive(&format!("{purpose}\0{call_id}")),
        }
    }

    /// Returns true if the call was sent before that time, or may have been.
    pub(super) fn were_sent_before(&self, time: Timestamp) -> bool {
        match self {
            Self::Random => false,
            Self::Derived { sent, .. } => *sent < time,
        }
    }

    /// Returns the message id of the call's command, or nothing if the command's own id is to be used. `earlier` commands of
    /// this call were refused for a while.
    pub(super) fn message_id(&self, earlier: usize) -> Option<String> {
        match self {
            Self::Random => None,
            Self::Derived { call_id, .. } if earlier == 0 => Some(call_id.clone()),
            Self::Derived { call_id, .. } => Some(format!("{call_id}.{earlier}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h6_a_call_derives_the_same_ids_again() {
        let session = SharedKey::random();
        let sent = Timestamp::from_second(1_000).unwrap();
        let of = |call_id: &str| CallIds::Derived { session: session.clone(), call_id: call_id.to_owned(), sent };
        let random = |ids: &CallIds, purpose: &str| ids.random(purpose).unwrap();
        assert_eq!(random(&of("one"), "state"), random(&of("one"), "state"));
        assert_ne!(random(&of("one"), "state"), random(&of("two"), "state"));
        assert_ne!(random(&of("one"), "state"), random(&of("one"), "key"));
        assert_ne!(random(&CallIds::Random, "state"), random(&CallIds::Random, "state"));
        assert_eq!(of("one").message_id(0).unwrap(), "one");
        assert_eq!(of("one").message_id(2).unwrap(), "one.2");
        assert_eq!(CallIds::Random.message_id(0), None);
    }
}
