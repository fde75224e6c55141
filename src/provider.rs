//! Providers: the only HTTP client that talks to them, the guard that decides which hosts it may connect to, and the
//! built-in profiles.

mod authorities;
mod client;
mod error;
mod guard;
mod own_health;
pub(crate) mod profiles;

pub(crate) use self::authorities::Authorities;
pub(crate) use self::client::{Client, MAX_BODY_BYTES, ProviderResponse, Settings};
pub(crate) use self::error::ProviderError;
pub(crate) use self::guard::{Guard, bare, nat64_prefix};
pub(crate) use self::own_health::{Health, OwnProcess, OwnTls, own_health};
