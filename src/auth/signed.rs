//! Checks signed requests: the signature, the time, that the request is for exactly this call or command, and that it
//! is used once.
//!
//! The signature covers the hash of the user's JWT beside method, path, query, body, time and nonce. One user key may
//! be in JWTs of two accounts; without the hash, a gateway that hands on a request could choose between them.
//!
//! The bucket of nonces keeps each for 15 minutes, although a request must be signed within [`MAX_CLOCK_SKEW_SECONDS`]
//! of its arrival. A command is checked when a worker picks it up, against the time at which it was queued. A second
//! command with the same nonce may wait on the queue all the while, so a nonce must outlive the oldest command that is
//! accepted: [`MAX_QUEUED`], and the skew.

use std::collections::BTreeMap;

use async_nats::HeaderMap;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::nats_jwt::NatsUser;
use super::rejection::{Reason, Rejection};
use super::{AuthError, Purpose};
use crate::call::{Call, Operation, SignedContent};
use crate::jetstream::Nats;
use crate::jetstream::kv::{self, Swapped};
use crate::signed::{self, SignedRequest};
use crate::subject::{CommandSubject, NONCES, Verb};
use crate::system;

/// Largest difference between the signed time and the arrival of the request: covers clocks that are not synchronised,
/// and a slow network.
const MAX_CLOCK_SKEW_SECONDS: i64 = 60;
/// Oldest command that is accepted on a signature. Older ones are rejected, because their nonce may be forgotten.
const MAX_QUEUED: SignedDuration = SignedDuration::from_mins(10);

/// Checks all but the nonce.
pub(super) fn check(
    request: &SignedRequest,
    signature: &[u8],
    user: &NatsUser,
    purpose: Purpose<'_>,
    now: Timestamp,
) -> Result<(), Rejection> {
    let arrived = match purpose {
        Purpose::Call { .. } => now,
        Purpose::Command { queued, .. } => queued,
    };
    if arrived.as_second().saturating_sub(request.timestamp).saturating_abs() > MAX_CLOCK_SKEW_SECONDS {
        return Err(Reason::Timestamp.into());
    }
    if now.duration_since(arrived) > MAX_QUEUED {
        return Err(Reason::Timestamp.into());
    }
    user.verify_signature(request.text().expose().as_bytes(), signature)?;
    let fits = match purpose {
        Purpose::Call { call, body } => fits_call(request, call, body).unwrap_or(false),
        Purpose::Command { subject, content, .. } => fits_command(request, subject, content),
    };
    if fits { Ok(()) } else { Err(Reason::Misused.into()) }
}

/// Returns true if path and query say exactly what the call's body says, so that the gateway cannot make another call
/// of the request.
fn fits_call(request: &SignedRequest, call: Call, body: &[u8]) -> Option<bool> {
    let (path, query) = request.path_and_query();
    let names = call.operations().iter().find_map(|operation| operation.names(&request.method, path))?;
    let names = match call.signed_content() {
        SignedContent::PathAndQuery => names,
        SignedContent::Query => Vec::new(),
        SignedContent::NotSigned => return None,
    };
    let mut wanted = BTreeMap::new();
    let names = names.into_iter().map(|(field, name)| (field.to_owned(), name.to_owned()));
    for (field, value) in names.chain(url::form_urlencoded::parse(query.as_bytes()).into_owned()) {
        if wanted.insert(field, value).is_some() {
            return None;
        }
    }
    let mut asked = flat(&serde_json::from_slice(body).ok()?)?;
    if !wanted.contains_key("limit") {
        // The gateway sets `limit` if the caller does not.
        asked.remove("limit");
    }
    if matches!(call, Call::Refresh | Call::Delete) {
        // So does a gateway with the time of the first try, in a later one.
        asked.remove("began");
    }
    Some(asked == wanted)
}

/// The fields of a call's body as the query's parameters that they come from.
fn flat(body: &Map<String, Value>) -> Option<BTreeMap<String, String>> {
    let mut fields = BTreeMap::new();
    for (name, value) in body {
        match value {
            Value::Object(values) if name == "variables" || name == "params" => {
                let prefix = if name == "params" { "param" } else { "var" };
                for (name, value) in values {
                    fields.insert(format!("{prefix}.{name}"), value.as_str()?.to_owned());
                }
            }
            Value::String(text) => drop(fields.insert(name.clone(), text.clone())),
            Value::Number(number) => drop(fields.insert(name.clone(), number.to_string())),
            Value::Bool(flag) => drop(fields.insert(name.clone(), flag.to_string())),
            Value::Null | Value::Array(_) | Value::Object(_) => return None,
        }
    }
    Some(fields)
}

fn fits_command(request: &SignedRequest, subject: &CommandSubject, content: &[u8]) -> bool {
    let (path, query) = request.path_and_query();
    let operation = Operation::of_command(subject.verb);
    let Some(names) = operation.and_then(|operation| operation.names(&request.method, path)) else { return false };
    let has_integration = names == [("integration_id", subject.integration.as_str())];
    match subject.verb {
        Verb::Put => has_integration && query.is_empty() && request.body_hash == signed::hash(content),
        Verb::Delete => has_integration && query.is_empty(),
        Verb::Exchange => query.as_bytes() == content,
        Verb::Refresh | Verb::Revoke => false,
    }
}

/// Uses a request's nonce up: of all calls and commands with it, at all workers, exactly one succeeds. A command that
/// is delivered again is the same one and succeeds again.
pub(super) async fn use_nonce_up(
    nats: &Nats,
    request: &SignedRequest,
    user: &NatsUser,
    purpose: Purpose<'_>,
) -> Result<(), AuthError> {
    let owner = match purpose {
        // A command with the same signature follows and uses the nonce up.
        Purpose::Call { call: Call::Whoami, .. } => return Ok(()),
        Purpose::Call { .. } => system::random_id(),
        Purpose::Command { id, .. } => id.to_owned(),
    };
    let key = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(format!("{}\n{}", user.key, request.nonce)));
    let at = kv::At { bucket: NONCES, key: &key, replaces: 0 };
    let write = kv::Write::Put { headers: HeaderMap::new(), value: owner.clone().into() };
    match kv::swap(nats, at, write).await? {
        Swapped::Done => Ok(()),
        Swapped::Lost(Some(first)) if first.payload == owner.as_bytes() => Ok(()),
        Swapped::Lost(_) => Err(Reason::Replayed.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;
    use crate::subject::{Account, Integration};

    fn request(method: &str, target: &str, body: &[u8]) -> SignedRequest {
        SignedRequest {
            jwt: Secret::new("j.w.t"),
            timestamp: 0,
            nonce: "n".repeat(16),
            method: method.to_owned(),
            target: Secret::new(target),
            body_hash: signed::hash(body),
        }
    }

    #[test]
    fn e9_a_signed_request_fits_its_own_call_alone() {
        #[track_caller]
        fn check(signed: &str, call: &str, body: &str, expected: bool) {
            let (method, target) = signed.split_once(' ').unwrap();
            let fits =
                Call::parse(call).and_then(|call| fits_call(&request(method, target, b""), call, body.as_bytes()));
            assert_eq!(fits.unwrap_or(false), expected, "{signed} as {call} {body}");
        }
        let slack = r#"{"integration_id":"slack","connection_id":"one"}"#;
        check("GET /hub/integrations/slack/oauth-token/one", "token", slack, true);
        check("GET /hub/integrations/slack/oauth-token/one", "refresh", slack, false);
        check("GET /hub/integrations/slack/oauth-token/one", "delete", slack, false);
        check("DELETE /hub/integrations/slack/oauth-token/one", "token", slack, false);
        check("GET /hub/integrations/slack/oauth-token/two", "token", slack, false);
        check("GET /hub/integrations/github/oauth-token/one", "token", slack, false);
        check("GET /elsewhere/slack/oauth-token/one", "token", slack, false);
        check("GET /hub/integrations/slack/oauth-token/one/", "token", slack, false);
        check("GET /hub/integrations/slack/oauth-token/one?min_valid=60", "token", slack, false);
        let valid = r#"{"integration_id":"slack","connection_id":"one","min_valid":60}"#;
        check("GET /hub/integrations/slack/oauth-token/one?min_valid=60", "token", valid, true);
        check("GET /hub/integrations/slack/oauth-token/one", "token", valid, false);
        check("DELETE /hub/integrations/slack/oauth-connections/one", "delete", slack, true);
        let later = r#"{"integration_id":"slack","connection_id":"one","began":1764500000000}"#;
        check("DELETE /hub/integrations/slack/oauth-connections/one", "delete", later, true);
        check("DELETE /hub/integrations/slack/oauth-connections/one?began=1764500000000", "delete", later, false);
        check("GET /hub/integrations/slack/oauth-refresh-token/one", "refresh", later, true);
        check("GET /hub/integrations/slack/oauth-token/one", "token", later, false);
        check("GET /hub/integrations/oauth-connections", "list", r#"{"limit":100}"#, true);
        check("GET /hub/integrations/oauth-connections?limit=5", "list", r#"{"limit":100}"#, false);
        check("GET /hub/integrations/slack/oauth-connections", "list", r#"{"limit":100}"#, false);
        check("GET /hub/integrations/slack/oauth-config", "config", r#"{"integration_id":"slack"}"#, true);
        check("GET /hub/integrations/oauth-config/slack", "config", r#"{"integration_id":"slack"}"#, true);
        check("GET /hub/integrations/slack/oauth-config", "whoami", "{}", false);
        check("PUT /hub/integrations/slack/oauth-config", "whoami", "{}", true);
        let login = r#"{"integration_id":"s","connection_id":"o","scopes":"a,b","variables":{"shop":"x y"}}"#;
        check("GET /hub/integrations/s/oauth-login/o?scopes=a%2Cb&var.shop=x+y", "login", login, true);
        check("GET /hub/integrations/s/oauth-login/o?scopes=a&var.shop=x+y", "login", login, false);
        let params = r#"{"integration_id":"s","connection_id":"o","params":{"login_hint":"a@b"}}"#;
        check("GET /hub/integrations/s/oauth-login/o?param.login_hint=a%40b", "login", params, true);
        check("GET /hub/integrations/s/oauth-login/o?var.login_hint=a%40b", "login", params, false);
        check("GET /hub/integrations/s/oauth-login/o?scopes=a%2Cb&var.shop=z", "login", login, false);
        check("GET /hub/integrations/s/oauth-login/o?connection_id=o&scopes=a%2Cb&var.shop=x+y", "login", login, false);
        check("GET /hub/integrations/s/oauth-login/o", "login", "[]", false);
        check("GET /hub/integrations/s/oauth-login/o", "unheard-of", "{}", false);
        assert_eq!(Call::parse("unheard-of"), None);
    }

    #[test]
    fn e9_a_signed_request_fits_its_own_command_alone() {
        let account = Account::parse(&nkeys::KeyPair::new_account().public_key()).unwrap();
        let subject = |verb| CommandSubject::config(Integration::parse("slack").unwrap(), account.clone(), verb);
        let path = "/hub/integrations/slack/oauth-config";
        let put =
            |method, path, signed: &[u8]| fits_command(&request(method, path, signed), &subject(Verb::Put), b"{}");
        assert!(put("PUT", path, b"{}"));
        assert!(!put("PUT", path, b"{ }"));
        assert!(!put("DELETE", path, b"{}"));
        assert!(!put("PUT", "/hub/integrations/github/oauth-config", b"{}"));
        assert!(!put("PUT", "/hub/integrations/slack/oauth-config?x=1", b"{}"));
        assert!(fits_command(&request("DELETE", path, b""), &subject(Verb::Delete), b""));
        assert!(!fits_command(&request("PUT", path, b""), &subject(Verb::Delete), b""));
        let exchange = |target| fits_command(&request("GET", target, b""), &subject(Verb::Exchange), b"code=c&state=s");
        assert!(exchange("/hub/integrations/oauth-callback?code=c&state=s"));
        assert!(!exchange("/hub/integrations/oauth-callback?code=d&state=s"));
        assert!(!fits_command(&request("GET", path, b""), &subject(Verb::Refresh), b""));
    }
}
