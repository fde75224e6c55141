//! The token endpoint (RFC 6749 §3.2) and the revocation endpoint (RFC 7009 §2): requests and responses.

mod assertion;
mod client_authentication;
mod request;
mod response;
mod revocation;

pub(crate) use self::client_authentication::ClientAuthentication;
pub(crate) use self::request::{CodeGrant, RefreshGrant, RequestError, exchange_request, refresh_request};
pub use self::response::TokenSet;
pub(crate) use self::response::{
    BEARER, MAX_REFRESH_TOKEN_BYTES, METADATA, Response, TokenError, has_large_values, plain_values,
};
pub(crate) use self::revocation::{Revocation, revocation_request};
