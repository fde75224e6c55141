//! tokenbus on real nats-servers, one for each test, with a provider that answers whatever a test wants.

// `cfg(test)` is what clippy knows tests by, their helpers included.
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod chaos;
#[cfg(test)]
mod e2e;
#[cfg(feature = "failpoints")]
#[cfg(test)]
#[path = "../support/fleet.rs"]
mod fleet;
#[cfg(test)]
mod provider;
#[cfg(test)]
#[path = "../support/support.rs"]
mod support;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod worker_crash;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod worker_queue;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod worker_race;
#[cfg(test)]
mod world;
