//! Tasks that run beside commands and calls. Each file says what its task guarantees, how often it runs, and what happens
//! if it does not run.

pub(super) mod due;
pub(super) mod periodic_checks;
pub(super) mod queues;
pub(crate) mod refresh_limiter;
pub(super) mod repair;
pub(super) mod room;
pub(super) mod webhooks;
