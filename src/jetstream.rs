//! Transport to NATS JetStream: connects, publishes with a confirmed answer, and reads streams and buckets.
//!
//! Knows no message of this program: [`crate::protocol`] says what messages mean, and builds on this module.

pub(crate) mod batch;
mod client;
mod connect;
pub(crate) mod kv;
pub(crate) mod reader;
pub(crate) mod scan;

pub(crate) use self::client::NatsError;
pub(crate) use self::client::{LONGEST_PUBLISH, TRY, header, headers, headers_with};
pub use self::client::{Nats, Patience, PubAck};
pub(crate) use self::connect::ConnectError;
