//! What our messages on the bus mean: streams, commands, records, schedules, permissions.

pub(crate) mod ask_workers;
pub(crate) mod commands;
pub(crate) mod high_water;
pub(crate) mod permissions;
pub(crate) mod quarantine;
pub(crate) mod records;
pub(crate) mod replies;
pub(crate) mod schedule;
pub(crate) mod topology;
