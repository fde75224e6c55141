//! OAuth 2.0 as data: builds requests and parses responses; sends nothing.

mod api_request;
pub(crate) mod authorization;
pub(crate) mod callback;
pub(crate) mod error;
mod http_request;
pub(crate) mod id_token;
mod identity;
mod json;
pub(crate) mod pkce;
mod provider_answer;
pub(crate) mod token;

pub(crate) use self::api_request::api_request;
pub(crate) use self::http_request::{Body, HttpRequest};
pub use self::identity::Identity;
pub(crate) use self::provider_answer::ProviderAnswer;
