//! tokenbus on real nats-servers, one for each test, with a provider that answers whatever a test wants.

// `cfg(test)` is what clippy knows tests by, their helpers included.
#[cfg(test)]
mod e2e;
#[cfg(test)]
mod provider;
#[cfg(test)]
#[path = "../support/support.rs"]
mod support;
#[cfg(test)]
mod world;
