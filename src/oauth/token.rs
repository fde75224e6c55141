//! The token endpoint (RFC 6749 §3.2): requests to it and what comes back.

mod response;
mod assertion;
mod request;

pub use self::response::TokenSet;
pub(crate) use self::response::{TokenError, parse_answer};
pub(crate) use self::assertion::client_assertion;
pub(crate) use self::assertion::signing_key;
pub(crate) use self::request::{
    ClientAuth, CodeGrant, RefreshGrant, Request, RequestError, Revocation, TokenHint, exchange_request,
    refresh_request, revocation_request,
};
