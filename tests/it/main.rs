//! tokenbus on real nats-servers, one for each test, with a provider that sends scripted answers.
//!
//! Tests that kill workers at failpoints need the feature `failpoints`: `cargo test --features failpoints`.

// Clippy recognises tests and their helpers by `cfg(test)`.
#[cfg(test)]
mod answer_forms;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod api_keys;
#[cfg(test)]
mod ask;
#[cfg(test)]
mod authorities;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod backup;
#[cfg(test)]
mod bus;
#[cfg(test)]
mod canary;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod chaos;
#[cfg(test)]
mod checklist;
#[cfg(test)]
mod cli_config;
#[cfg(test)]
mod cli_connections;
#[cfg(test)]
mod cli_dialog;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod cli_program;
#[cfg(test)]
mod cli_providers;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod clocks;
#[cfg(test)]
mod collector;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod config_cache;
#[cfg(test)]
mod dashboards;
#[cfg(test)]
mod deploying;
#[cfg(test)]
mod diagnosis;
#[cfg(test)]
mod dialects;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod e2e;
#[cfg(test)]
mod edge;
#[cfg(test)]
mod egress;
#[cfg(test)]
mod empty_store;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod events;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod events_export;
#[cfg(feature = "failpoints")]
#[cfg(test)]
#[path = "../support/fleet.rs"]
mod fleet;
#[cfg(test)]
mod full_disk;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod grants;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod grants_model;
#[cfg(test)]
mod health_tls;
#[cfg(test)]
mod hints;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod hostile_clients;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod hostile_edge;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod hostile_floods;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod hostile_headers;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod hostile_listener;
#[cfg(test)]
mod hostile_operator;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod hostile_rates;
#[cfg(test)]
mod http_bound;
#[cfg(test)]
mod http_callback;
#[cfg(test)]
mod http_config;
#[cfg(test)]
mod http_connections;
#[cfg(test)]
mod http_flags;
#[cfg(test)]
mod http_health;
#[cfg(test)]
mod http_login;
#[cfg(test)]
mod http_outcome;
#[cfg(test)]
mod http_providers;
#[cfg(test)]
mod http_start;
#[cfg(test)]
mod http_strict;
#[cfg(test)]
mod identity;
#[cfg(test)]
#[path = "../support/issuer.rs"]
mod issuer;
#[cfg(test)]
mod jwt_nats;
#[cfg(test)]
mod jwt_ordinary;
#[cfg(test)]
mod kept_requests;
#[cfg(test)]
mod key_scopes;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod large_lists;
#[cfg(feature = "failpoints")]
#[cfg(test)]
#[path = "../support/latency.rs"]
mod latency;
#[cfg(test)]
mod layout;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod left_out;
#[cfg(test)]
mod left_parts;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod log_lines;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod lost_answers;
#[cfg(test)]
mod marks;
#[cfg(test)]
#[path = "../support/mint.rs"]
mod mint;
#[cfg(test)]
mod nats_cluster;
#[cfg(test)]
mod nats_elections;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod nats_hidden_restarts;
#[cfg(test)]
mod nats_jwt_mode;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod nats_killed;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod nats_killed_deletions;
#[cfg(test)]
mod nats_lost;
#[cfg(test)]
mod nats_operator;
#[cfg(test)]
mod nats_own_permissions;
#[cfg(test)]
mod nats_permissions;
#[cfg(test)]
mod nats_production;
#[cfg(test)]
mod nats_records;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod nats_restarts;
#[cfg(test)]
mod nats_tenant;
#[cfg(test)]
mod nats_tls;
#[cfg(test)]
mod nats_topology;
#[cfg(test)]
mod nats_writers;
#[cfg(test)]
mod next_secret;
#[cfg(test)]
mod nodes;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod nodes_flood;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod nodes_shutdown;
#[cfg(test)]
mod operator_mode;
#[cfg(test)]
mod operators;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod outgoing;
#[cfg(test)]
mod packages;
#[cfg(test)]
mod plaintext;
#[cfg(test)]
mod provider;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod quotas;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod reads_interrupted;
#[cfg(test)]
mod refresh_callers;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod refresh_collide;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod refresh_crash;
#[cfg(test)]
mod refresh_rules;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod refresh_stopped;
#[cfg(test)]
mod refresh_withheld;
#[cfg(test)]
mod refused;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod renewal;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod repair;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod restore;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod restore_cluster;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod restore_rebuild;
#[cfg(test)]
mod revocations;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod room;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod seal_rotate;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod seal_start;
#[cfg(test)]
mod sealed_whole;
#[cfg(feature = "failpoints")]
#[cfg(test)]
#[path = "../support/seed.rs"]
mod seed;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod sequences;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod slow_provider;
#[cfg(test)]
mod steps;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod superseded;
#[cfg(test)]
#[expect(dead_code, reason = "the benches use more of it")]
#[path = "../support/support.rs"]
mod support;
#[cfg(test)]
mod tidy;
#[cfg(test)]
mod token_source;
#[cfg(test)]
#[expect(dead_code, reason = "its main is for people")]
#[path = "../../examples/token_source.rs"]
mod token_source_example;
#[cfg(test)]
mod token_source_scripted;
#[cfg(test)]
mod traces;
#[cfg(test)]
mod unreachable;
#[cfg(test)]
mod unsent;
#[cfg(test)]
mod upgrade;
#[cfg(test)]
mod webhooks;
#[cfg(test)]
mod wire;
#[cfg(test)]
mod worker_answers;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod worker_crash;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod worker_keys;
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
