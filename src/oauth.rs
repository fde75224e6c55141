//! OAuth 2.0 as data: requests are built and answers judged here; nothing is sent.

pub(crate) mod authorization;
pub(crate) mod callback;
pub(crate) mod error;
pub(crate) mod pkce;
pub(crate) mod token;
