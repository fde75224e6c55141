//! tokenbus: OAuth connections on a message bus.
//!
//! A workflow node gets its tokens through [`client`]. [`subject`] has the names on the bus, [`connection`] the values. All
//! other modules are private parts of the `tokenbus` program, listed in reading order.
#![cfg_attr(rustfmt, rustfmt_skip)]
// Items that only tests and benches use are public only with the feature `internals`, and need no documentation.
#![cfg_attr(feature = "internals", allow(missing_docs, clippy::missing_errors_doc, clippy::missing_panics_doc))]
#![cfg_attr(not(feature = "internals"), allow(unreachable_pub))]

// Core: plain values; no async, no IO, no clock, no randomness of its own.
pub mod subject;
mod call;
mod secret;
mod signed;
mod command;
pub mod connection;
mod event;
mod fair_queue;
mod foreign_text;
mod integration;
mod login;
mod oauth;
mod outcome;
mod permits;
mod rights;
mod webhook;

// Edges: each touches one outside thing.
mod config;
mod system;
mod telemetry;
mod shutdown;
mod seal;
mod jetstream;
mod protocol;
mod provider;

// The gateway: HTTP on one side, the bus on the other.
mod gateway;

// The worker: stored data, verification of callers, and the steps of each command.
mod store;
mod auth;
mod worker;

// Copies of all streams, as sealed files.
mod backup;

// For nodes and people: clients of the workers' calls.
pub mod client;

// The program.
mod cli;
mod demo;
#[cfg(feature = "failpoints")]
mod failpoint;

pub use self::secret::Secret;

#[doc(hidden)]
pub use self::cli::{Arguments, report, run};
#[cfg(feature = "failpoints")]
#[doc(hidden)]
pub use self::failpoint::arm;

/// Only for the tests and benches of this package.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::integration::IssuedAt;
    pub use crate::jetstream::{Nats, Patience};
    pub use crate::oauth::token::TokenSet;
    pub use crate::outcome::MAX_WEBHOOK_DELIVERIES;
    pub use crate::protocol::replies::Replies;
    pub use crate::store::Store;

    pub mod auth {
        pub use crate::auth::cache::{VerifiedJwt, VerifiedJwts};
        pub use crate::auth::jwks::VerificationKeys;
        pub use crate::auth::ordinary_jwt::Rules;
        pub use crate::auth::nats_jwt::{AccountJwt, SelfConsistent};
        pub use crate::auth::jwt::{Jwt, MAX_JWT_BYTES};
    }
    pub mod connection { pub use crate::connection::internals::*; }
    pub mod command { pub use crate::command::*; }
    pub mod config { pub use crate::config::{Config, Nats, Secrets, env, load}; }
    pub mod gateway {
        pub use crate::call::Call;
        pub use crate::gateway::backend::{Backend, BackendError, Command, RequestContext, StateOwner};
    }
    pub mod schedule { pub use crate::protocol::schedule::{Due, ScheduleMessage, message}; }
    pub mod seal { pub use crate::protocol::replies::open_answer; pub use crate::seal::{Keyring, SealContext, SharedKey, generate, seal_order}; }
    pub mod subject { pub use crate::subject::internals::*; }
    pub mod signed { pub use crate::signed::*; }
    pub mod system { pub use crate::system::{now, random_id, random_share}; }
}
