//! Providers: the one HTTP client that talks to them, whom it may talk to, and ready profiles.

pub(crate) mod client;
pub(crate) mod guard;
pub(crate) mod profiles;

pub(crate) use self::client::{Client, Error, Settings, TOTAL_TIMEOUT};
pub(crate) use self::guard::Guard;
