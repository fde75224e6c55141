//! Verbs. Only the file of a verb has the order of its steps.

pub(super) mod configure;
pub(super) mod exchange;
pub(super) mod refresh;
pub(super) mod revoke;
