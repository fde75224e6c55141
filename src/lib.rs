//! tokenbus: OAuth connections on a message bus.
//!
//! The modules in reading order.
#![cfg_attr(rustfmt, rustfmt_skip)]

// Core: plain values; no async, no IO, no clock, no randomness of its own.
pub mod subject;
pub mod secret;
pub mod signed;
pub mod command;
pub mod connection;
pub mod event;
pub mod integration;
pub mod login;
pub mod oauth;
pub mod outcome;
pub mod share;
pub mod webhook;

// Edges: each touches one outside thing.
pub mod config;
pub mod system;
pub mod telemetry;
pub mod shutdown;
pub mod seal;
pub mod jetstream;
pub mod protocol;
pub mod provider;

// The gateway: HTTP on one side, the bus on the other.
pub mod gateway;

// The worker: what is kept, who asks, and the order of things.
pub mod store;
pub mod auth;
pub mod worker;

// For nodes and for people: the calls of the bus, from the other side.
pub mod client;

// The program.
pub mod cli;
pub mod demo;
#[cfg(feature = "failpoints")]
pub mod failpoint;
