//! Transport to NATS JetStream: connects, publishes with a confirmed answer, and reads streams and buckets.
//!
//! It knows no message of this program. [`crate::protocol`] says what messages mean, and builds on this module.

mod age;
pub(crate) mod batch;
pub(crate) mod changes;
mod client;
mod connect;
mod connected;
mod error;
mod header;
mod kept;
pub(crate) mod kv;
mod last;
pub(crate) mod pull;
pub(crate) mod reader;
pub(crate) mod receiver;
mod renewal;
mod requests;
mod server;
pub(crate) mod snapshot;
mod stream;
mod watched;

pub(crate) use self::age::age;
pub(crate) use self::client::{LONGEST_PUBLISH, Published, REQUEST_TIMEOUT};
pub use self::client::{Nats, Patience};
pub(crate) use self::connect::ConnectError;
pub(crate) use self::error::{Cause, NatsError, Unavailable};

pub(crate) use self::header::{header, headers};
pub(crate) use self::renewal::keep_credentials_current;
pub(crate) use self::stream::StreamState;
pub(crate) use self::watched::WatchedBucket;
