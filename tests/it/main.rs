//! tokenbus on real nats-servers, one for each test, with a provider that answers whatever a test wants.

// `cfg(test)` is what clippy knows tests by, their helpers included.
#[cfg(all(test, feature = "failpoints"))]
mod chaos;
#[cfg(test)]
mod e2e;
#[cfg(all(test, feature = "failpoints"))]
#[path = "../support/fleet.rs"]
mod fleet;
#[cfg(test)]
mod provider;
#[cfg(test)]
#[path = "../support/support.rs"]
mod support;
#[cfg(all(test, feature = "failpoints"))]
mod worker_crash;
#[cfg(all(test, feature = "failpoints"))]
mod worker_queue;
#[cfg(all(test, feature = "failpoints"))]
mod worker_race;
#[cfg(test)]
mod world;
