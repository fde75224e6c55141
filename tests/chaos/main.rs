//! Faults at random while tenants work, and an account of everything afterwards: `make chaos`.
//!
//! `CHAOS_SECONDS` sets the time with faults (default 480): half of it on one server, half on a cluster of three. After each half
//! a run waits until everything has recovered: up to four minutes. `CHAOS_SEED` repeats the faults of an earlier run.
//! `CHAOS_PROGRAM` is another build whose workers and gateways are tested, such as a release build.
//!
//! `make soak` runs the same tenants for `SOAK_SECONDS` without faults, and checks that nothing grows.

// Clippy recognises tests and their helpers by `cfg(test)`.
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod answers;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod check;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod configs;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod deployment;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod driver;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod faults;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod killed_server;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod late;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod ledger;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod links;
#[cfg(feature = "failpoints")]
#[cfg(test)]
#[path = "../attack/pace.rs"]
mod pace;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod process;
#[cfg(feature = "failpoints")]
#[cfg(test)]
#[expect(dead_code, reason = "the other suite uses more of it")]
#[path = "../it/provider.rs"]
mod provider;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod provider_log;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod rolling;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod routes;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod run;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod samples;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod soak;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod store;
#[cfg(feature = "failpoints")]
#[cfg(test)]
#[expect(dead_code, reason = "the other suite uses more of it")]
#[path = "../support/support.rs"]
mod support;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod tenant;
