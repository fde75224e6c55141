//! Meaning of the program's messages on the bus. Reading order:
//!
//! - [`topology`]: the streams, buckets and consumers.
//! - [`commands`], [`outgoing`], [`replies`]: the work queue, how a command is sent, and how it is answered.
//! - [`calls`]: sealed calls of gateways, and their answers.
//! - [`records`]: the durable state of connections and configs.
//! - [`events`]: the audit log.
//! - [`schedule`]: when each connection is refreshed next.
//! - [`bus_clock`]: the bus's time.
//! - [`server_start`]: restarts of a server that may lose commands.
//! - [`high_water`], [`permissions`]: checks at a start and while running.
//! - [`ask_workers`]: questions that every worker answers.

pub(crate) mod ask_workers;
pub(crate) mod bus_clock;
pub(crate) mod calls;
pub(crate) mod commands;
pub(crate) mod events;
pub(crate) mod form;
pub(crate) mod high_water;
pub(crate) mod origin;
pub(crate) mod outgoing;
pub(crate) mod permissions;
pub(crate) mod records;
pub(crate) mod replies;
pub(crate) mod schedule;
pub(crate) mod server_start;
pub(crate) mod topology;
