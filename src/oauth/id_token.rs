//! ID tokens (OpenID Connect Core 1.0 §2): the claims that name a connection's account at the provider.
//!
//! An ID token from the token endpoint needs no check of its signature: TLS has authenticated the server that sent it
//! (§3.1.3.7, point 6).

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::integration::value_at;
use crate::secret::Secret;

/// Largest accepted difference between the provider's clock and ours.
const LEEWAY: SignedDuration = SignedDuration::from_mins(5);

/// The values that the ID token of a login must have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected<'a> {
    /// `{claim}` stands for a claim of the same token.
    pub issuer: &'a str,
    pub client_id: &'a str,
    /// The authorization request's `nonce`.
    pub nonce: &'a str,
    pub now: Timestamp,
}

/// Contains no text of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IdTokenError {
    #[error("the ID token is not a JWT")]
    Malformed,
    #[error("the ID token has another issuer")]
    Issuer,
    #[error("the ID token is for another client")]
    Audience,
    #[error("the ID token has expired")]
    Expired,
    #[error("the ID token belongs to another login")]
    Nonce,
}

/// Returns the claims of an ID token (§3.1.3.7).
///
/// # Errors
/// If it is not the token that this login expects.
pub(crate) fn claims(token: &Secret, expected: &Expected<'_>) -> Result<Value, IdTokenError> {
    let claims = decode(token).ok_or(IdTokenError::Malformed)?;
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    if text("iss").is_none() || text("iss") != issuer(expected.issuer, &claims).as_deref() {
        return Err(IdTokenError::Issuer);
    }
    let audience = claims.get("aud");
    let is_for_client = match audience {
        Some(Value::Array(clients)) => clients.iter().any(|client| client.as_str() == Some(expected.client_id)),
        _ => text("aud") == Some(expected.client_id),
    };
    let is_shared = audience.and_then(Value::as_array).is_some_and(|clients| clients.len() > 1);
    // A token for several clients names the one that asked for it.
    if !is_for_client || text("azp").map_or(is_shared, |client| client != expected.client_id) {
        return Err(IdTokenError::Audience);
    }
    let end = claims.get("exp").and_then(Value::as_f64).ok_or(IdTokenError::Expired)?;
    #[expect(clippy::cast_precision_loss, reason = "Unix seconds are exact")]
    let now = expected.now.saturating_sub(LEEWAY).map_or(f64::MAX, |earlier| earlier.as_second() as f64);
    if end <= now {
        return Err(IdTokenError::Expired);
    }
    if text("nonce") != Some(expected.nonce) {
        return Err(IdTokenError::Nonce);
    }
    Ok(claims)
}

fn decode(token: &Secret) -> Option<Value> {
    let mut parts = token.expose().split('.');
    let (_header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let payload = BASE64_URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&payload).ok().filter(Value::is_object)
}

/// Returns the issuer with the claims filled in; `None` if one is missing or could change the host.
fn issuer(template: &str, claims: &Value) -> Option<String> {
    let (mut filled, mut rest) = (String::new(), template);
    while let Some((fixed, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}')?;
        let value = value_at(claims, name)?.as_str()?;
        let is_plain = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        filled.push_str(fixed);
        filled.push_str(is_plain.then_some(value)?);
        rest = after;
    }
    filled.push_str(rest);
    Some(filled)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_750_000_000;

    fn token(claims: &Value) -> Secret {
        let encode = |part: &Value| BASE64_URL_SAFE_NO_PAD.encode(part.to_string());
        Secret::new(format!("{}.{}.signature", encode(&json!({ "alg": "RS256" })), encode(claims)))
    }

    fn good() -> Value {
        json!({ "iss": "https://id.example", "aud": "client", "exp": NOW + 60, "nonce": "n", "sub": "u-1" })
    }

    #[track_caller]
    fn check(changes: &Value, issuer: &str, expected: Result<(), IdTokenError>) {
        let mut claims = good();
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let now = Timestamp::from_second(NOW).unwrap();
        let wanted = Expected { issuer, client_id: "client", nonce: "n", now };
        assert_eq!(super::claims(&token(&claims), &wanted).map(|_| ()), expected, "{claims}");
    }

    #[test]
    fn h13_an_id_token_is_of_this_issuer_client_time_and_login() {
        let issuer = "https://id.example";
        check(&json!({}), issuer, Ok(()));
        check(&json!({ "aud": ["client"] }), issuer, Ok(()));
        check(&json!({ "aud": ["client", "other"], "azp": "client" }), issuer, Ok(()));
        // A clock that is a little off.
        check(&json!({ "exp": NOW - 299 }), issuer, Ok(()));

        check(&json!({ "iss": "https://other.example" }), issuer, Err(IdTokenError::Issuer));
        check(&json!({ "iss": "https://id.example/" }), issuer, Err(IdTokenError::Issuer));
        check(&json!({ "iss": null }), issuer, Err(IdTokenError::Issuer));
        check(&json!({ "aud": "other" }), issuer, Err(IdTokenError::Audience));
        check(&json!({ "aud": [] }), issuer, Err(IdTokenError::Audience));
        check(&json!({ "aud": ["client", "other"] }), issuer, Err(IdTokenError::Audience));
        check(&json!({ "aud": ["client", "other"], "azp": "other" }), issuer, Err(IdTokenError::Audience));
        check(&json!({ "exp": NOW - 301 }), issuer, Err(IdTokenError::Expired));
        check(&json!({ "exp": "soon" }), issuer, Err(IdTokenError::Expired));
        check(&json!({ "nonce": "other" }), issuer, Err(IdTokenError::Nonce));
        check(&json!({ "nonce": null }), issuer, Err(IdTokenError::Nonce));
    }

    #[test]
    fn h13_claims_fill_an_issuer_but_cannot_change_its_host() {
        let issuer = "https://id.example/{tid}/v2.0";
        check(&json!({ "tid": "t-1", "iss": "https://id.example/t-1/v2.0" }), issuer, Ok(()));
        check(&json!({ "tid": "t-1", "iss": "https://id.example/t-2/v2.0" }), issuer, Err(IdTokenError::Issuer));
        check(&json!({ "iss": "https://id.example/t-1/v2.0" }), issuer, Err(IdTokenError::Issuer));
        check(&json!({ "tid": "a/b", "iss": "https://id.example/a/b/v2.0" }), issuer, Err(IdTokenError::Issuer));
        check(&json!({ "tid": "", "iss": "https://id.example//v2.0" }), issuer, Err(IdTokenError::Issuer));
    }

    #[test]
    fn h13_text_that_is_no_jwt_is_refused() {
        let wanted = Expected { issuer: "i", client_id: "c", nonce: "n", now: Timestamp::UNIX_EPOCH };
        for text in ["", "a.b", "a.b.c.d", "a.!.c", "..", "e30.W10.e30"] {
            assert_eq!(super::claims(&Secret::new(text), &wanted), Err(IdTokenError::Malformed), "{text}");
        }
    }
}
