//! Subjects of replies to commands.
//!
//! `oauth.reply.<edge id>.<id>` is exported to the gateways' account, so every gateway may receive it. Replies from one
//! worker to another stay in the workers' account, under `oauth.reply.worker.<worker id>.<id>`. That form has one token
//! more, so the export does not match it.

use super::{ADMIN_EDGE, is_id};

const REPLY: &str = "oauth.reply";
const WORKER: &str = "worker";

/// A process that waits for replies, by its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waiter {
    /// A gateway, or the `tokenbus` program run by an admin.
    Edge(String),
    /// A worker that sent a command to serve a call.
    Worker(String),
}

impl Waiter {
    /// Subject of the reply to one command.
    #[must_use]
    pub(crate) fn reply(&self, id: &str) -> String {
        match self {
            Self::Edge(edge) => format!("{REPLY}.{edge}.{id}"),
            Self::Worker(worker) => format!("{REPLY}.{WORKER}.{worker}.{id}"),
        }
    }

    /// Filter of all replies to this process.
    #[must_use]
    pub(crate) fn replies(&self) -> String {
        self.reply("*")
    }
}

/// Returns the command's id from a reply subject. Accepts only our two forms, with ids of 128 bits in base64url (or
/// [`ADMIN_EDGE`] as the process), so that a sender cannot direct a reply to another subject. A worker's form is accepted
/// only for commands that a worker sent, and a gateway's only for others.
#[must_use]
pub(crate) fn parse_reply(subject: &str, from_worker: bool) -> Option<&str> {
    let path = subject.strip_prefix(REPLY)?.strip_prefix('.')?;
    let path = if from_worker { path.strip_prefix(WORKER)?.strip_prefix('.')? } else { path };
    let (process, id) = path.split_once('.')?;
    let is_process = is_id(process) || (!from_worker && process == ADMIN_EDGE);
    (is_process && is_id(id)).then_some(id)
}
