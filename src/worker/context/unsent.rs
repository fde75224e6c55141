//! Refresh commands that this process has received, and whether it has sent their refresh tokens.
//!
//! A command that is delivered again may have been sent by the delivery before, so its refresh is held. If that delivery was
//! this process's own and sent nothing, because NATS was interrupted, there is nothing to wait for.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Most commands to remember. When a further one arrives, all are forgotten: if they are delivered again, they are held.
const MAX_COMMANDS: usize = 10_000;

#[derive(Default)]
pub(crate) struct UnsentRefreshes(Mutex<HashMap<String, Deliveries>>);

#[derive(Clone, Copy)]
struct Deliveries {
    /// Number of the newest delivery.
    newest: i64,
    /// False if a delivery may have sent the refresh token, here or elsewhere.
    is_unsent: bool,
}

impl UnsentRefreshes {
    /// Begins a delivery. Returns true if no earlier delivery has sent the refresh token or still may.
    pub(crate) fn begin(&self, command_id: &str, delivered: i64) -> bool {
        self.with(|commands| {
            let before = commands.get(command_id).copied().unwrap_or(Deliveries { newest: 0, is_unsent: true });
            // Another process has received the deliveries that are missing here.
            let is_unsent = before.is_unsent && before.newest + 1 == delivered;
            if commands.len() >= MAX_COMMANDS {
                commands.clear();
            }
            commands.insert(command_id.to_owned(), Deliveries { newest: delivered, is_unsent });
            is_unsent
        })
    }

    /// Returns true if this delivery may send the refresh token, and remembers that it does. A newer delivery in this process
    /// prevents it.
    pub(crate) fn claim(&self, command_id: &str, delivered: i64) -> bool {
        self.with(|commands| match commands.get_mut(command_id) {
            Some(command) if command.newest == delivered => {
                command.is_unsent = false;
                true
            }
            Some(_) => false,
            // Forgotten: the next delivery is held.
            None => true,
        })
    }

    /// Forgets a command that ended.
    pub(crate) fn end(&self, command_id: &str) {
        self.with(|commands| commands.remove(command_id));
    }

    fn with<T>(&self, act: impl FnOnce(&mut HashMap<String, Deliveries>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_that_saw_all_deliveries_knows_that_nothing_was_sent() {
        let unsent = UnsentRefreshes::default();
        assert!(unsent.begin("a", 1) && unsent.begin("a", 2), "the first one sent nothing");
        assert!(!unsent.claim("a", 1), "a newer delivery has begun");
        assert!(unsent.claim("a", 2));
        assert!(!unsent.begin("a", 3), "the second one may have sent it");
        unsent.end("a");
        assert!(!unsent.begin("a", 4), "the command was forgotten");
        assert!(!unsent.begin("b", 2), "another process has had it");
        assert!(unsent.begin("c", 1) && !unsent.begin("c", 3), "another process has had the second one");
        for number in 0..2 * MAX_COMMANDS {
            unsent.begin(&number.to_string(), 1);
        }
        assert!(unsent.with(|commands| commands.len()) <= MAX_COMMANDS);
        assert!(unsent.claim("a", 4), "it is forgotten, and so held when it returns");
    }
}
