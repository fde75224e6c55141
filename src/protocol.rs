//! What our messages on the bus mean: streams, commands, records, schedules, permissions.

pub mod commands;
pub mod high_water;
pub mod permissions;
pub mod poll;
pub mod quarantine;
pub mod records;
pub mod replies;
pub mod schedule;
pub mod topology;
