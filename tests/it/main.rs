//! tokenbus on real nats-servers, one for each test, with a provider that answers whatever a test wants.
//!
//! Tests that kill workers at named places need the feature `failpoints`: `cargo test --features failpoints`.

// `cfg(test)` is what clippy knows tests by, their helpers included.
#[cfg(test)]
mod ask;
#[cfg(test)]
mod bus;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod chaos;
#[cfg(test)]
mod e2e;
#[cfg(feature = "failpoints")]
#[cfg(test)]
#[expect(dead_code, reason = "the benches use more of it")]
#[path = "../support/fleet.rs"]
mod fleet;
#[cfg(test)]
mod http_callback;
#[cfg(test)]
mod http_config;
#[cfg(test)]
mod http_connections;
#[cfg(test)]
mod http_health;
#[cfg(test)]
mod hygiene;
#[cfg(test)]
mod nats_cluster;
#[cfg(test)]
mod nats_permissions;
#[cfg(test)]
mod nats_records;
#[cfg(test)]
mod nats_topology;
#[cfg(test)]
mod provider;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod refresh_crash;
#[cfg(test)]
mod refresh_rules;
#[cfg(test)]
#[expect(dead_code, reason = "the benches use more of it")]
#[path = "../support/support.rs"]
mod support;
#[cfg(test)]
mod tidy;
#[cfg(test)]
mod wire;
#[cfg(test)]
mod worker_answers;
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
mod worker_refresh;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod worker_stop;
#[cfg(test)]
mod world;
