//! Tasks that run beside commands and calls.

pub(super) mod due;
pub(super) mod queues;
pub(crate) mod refresh_limiter;
pub(super) mod repair;
pub(super) mod upkeep;
pub(super) mod webhooks;
