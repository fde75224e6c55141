//! tokenbus: OAuth connections on a message bus.
//!
//! The modules in reading order.

// Core: plain values; no async, no IO, no clock, no randomness of its own.
pub mod secret;
pub mod subject;

// Edges: each touches one outside thing.
pub mod system;
