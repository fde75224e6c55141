//! The gateway's routes: one file per family, the route table, and the table from errors to statuses.

pub(super) mod api_keys;
pub(super) mod callback;
pub(super) mod configs;
pub(super) mod connections;
pub(super) mod error;
pub(super) mod health;
pub(super) mod metrics;
pub(super) mod openapi;
pub(super) mod page;
pub(super) mod providers;
pub(super) mod reply;
pub(super) mod request;
pub(super) mod start;
pub(super) mod table;
