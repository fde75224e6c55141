//! Attackers at all borders at once, while a well-behaved tenant works: `make attack`.
//!
//! `ATTACK_SECONDS` sets the time under attack (default 120). Quiet windows, and windows in which only the server is slow,
//! alternate with it, so a run takes three times as long.

// Clippy recognises tests and their helpers by `cfg(test)`.
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod attackers;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod check;
#[cfg(feature = "failpoints")]
#[cfg(test)]
#[expect(dead_code, reason = "the other suite uses more of it")]
#[path = "../support/fleet.rs"]
mod fleet;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod ledger;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod lost;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod pace;
#[cfg(feature = "failpoints")]
#[cfg(test)]
#[expect(dead_code, reason = "the other suite uses more of it")]
#[path = "../it/provider.rs"]
mod provider;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod slow;
#[cfg(feature = "failpoints")]
#[cfg(test)]
#[expect(dead_code, reason = "the other suite uses more of it")]
#[path = "../support/support.rs"]
mod support;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod tenant;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod together;
#[cfg(feature = "failpoints")]
#[cfg(test)]
#[expect(dead_code, reason = "the other suite uses more of it")]
#[path = "../it/wire.rs"]
mod wire;
