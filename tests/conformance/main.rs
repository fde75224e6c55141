//! tokenbus against a real authorization server, with and without a browser.
//!
//! Run with `cargo test --test conformance`; plain `cargo test` leaves it out, since it needs node and npm. The first
//! run installs the server's packages (`tests/provider/install`). Chromium is used where it is or can be installed;
//! otherwise the tests that need it print that they are skipped.

// Clippy recognises tests and their helpers by `cfg(test)`.
#[cfg(test)]
mod browser;
#[cfg(test)]
mod bus;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod cli_backup;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod dying_workers;
#[cfg(feature = "failpoints")]
#[cfg(test)]
#[expect(dead_code, reason = "the other suite uses more of it")]
#[path = "../support/fleet.rs"]
mod fleet;
#[cfg(test)]
mod flow;
#[cfg(test)]
mod grant;
#[cfg(test)]
mod nodes;
#[cfg(test)]
mod openapi;
#[cfg(test)]
mod parts;
#[cfg(test)]
mod provider_alone;
#[cfg(test)]
#[expect(dead_code, reason = "the other suite uses more of it")]
#[path = "../it/provider.rs"]
mod scripted;
#[cfg(test)]
#[expect(dead_code, reason = "the other suite uses more of it")]
#[path = "../support/support.rs"]
mod support;
