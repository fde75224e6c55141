//! OAuth 2.0 as data: requests are built and answers judged here; nothing is sent.

pub mod authorization;
pub mod callback;
pub mod error;
pub mod pkce;
pub mod token;
