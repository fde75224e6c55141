//! The verbs: one file each, and the only place that has a verb's order of steps.

pub(super) mod configure;
pub(super) mod exchange;
pub(super) mod refresh;
pub(super) mod revoke;
