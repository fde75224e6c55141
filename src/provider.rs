//! Providers: the one HTTP client that talks to them, whom it may talk to, and ready profiles.

pub mod client;
pub mod guard;
pub mod profiles;

pub use self::client::{Answer, Client, Error, Settings, TOTAL_TIMEOUT};
pub use self::guard::Guard;
