//! Where answers to commands go.
//!
//! `oauth.reply.<edge id>.<id>` leaves for the gateways' account, so every gateway may hear it; what workers answer
//! each other stays at home, under `oauth.reply.worker.<worker id>.<id>`, which is a token longer.

use super::{ADMIN_EDGE, is_id};

const REPLY: &str = "oauth.reply";
const WORKER: &str = "worker";

/// A process that waits for answers, by its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waiter {
    /// A gateway, or a person's command.
    Edge(String),
    /// A worker, for a call that it made a command of.
    Worker(String),
}

impl Waiter {
    /// Where the answer to the command of that id goes.
    #[must_use]
    pub fn reply(&self, id: &str) -> String {
        match self {
            Self::Edge(edge) => format!("{REPLY}.{edge}.{id}"),
            Self::Worker(worker) => format!("{REPLY}.{WORKER}.{worker}.{id}"),
        }
    }

    /// Where all answers to this process go.
    #[must_use]
    pub fn replies(&self) -> String {
        self.reply("*")
    }
}

/// The command's id in a reply subject of exactly our form: two ids of 128 bits in base64url, or [`ADMIN_EDGE`] and one.
/// Any other form is refused, so that nobody can have an answer land elsewhere; and only a worker's command is answered
/// to a worker.
#[must_use]
pub fn parse_reply(subject: &str, from_worker: bool) -> Option<&str> {
    let path = subject.strip_prefix(REPLY)?.strip_prefix('.')?;
    let path = if from_worker { path.strip_prefix(WORKER)?.strip_prefix('.')? } else { path };
    let (process, id) = path.split_once('.')?;
    let is_process = is_id(process) || (!from_worker && process == ADMIN_EDGE);
    (is_process && is_id(id)).then_some(id)
}
