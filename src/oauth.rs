//! OAuth 2.0 as data: builds requests and parses responses; sends nothing.

pub(crate) mod authorization;
pub(crate) mod callback;
pub(crate) mod error;
mod http_request;
mod json;
pub(crate) mod pkce;
mod provider_answer;
pub(crate) mod token;

pub(crate) use self::http_request::{Body, HttpRequest};
pub(crate) use self::provider_answer::ProviderAnswer;
