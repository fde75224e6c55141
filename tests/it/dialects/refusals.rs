//! Forms of refusals, of a login's code or of a dead grant's refresh token.

use serde_json::{Value, json};

use super::dialect::{Act, Dialect, Expected, code, connected, hour, renewal, tokens};
use crate::provider::Scripted;

pub(super) fn all() -> Vec<Dialect> {
    vec![
        not_ok(),
        dead(
            "words",
            json!({ "path": "status", "equals": "BAD_REFRESH_TOKEN" }),
            Scripted::json(400, &json!({ "status": "BAD_REFRESH_TOKEN", "message": "missing or unknown" })),
        ),
        dead(
            "number",
            json!({ "path": "error.code", "equals": 190 }),
            Scripted::json(400, &json!({ "error": { "type": "OAuthException", "code": 190, "message": "gone" } })),
        ),
        dead(
            "text",
            json!({ "status": 401, "equals": "Unauthorized" }),
            Scripted::new(401, "text/plain", "Unauthorized"),
        ),
        dead(
            "status",
            json!({ "path": "status", "equals": 401 }),
            Scripted::json(200, &json!({ "status": 401, "body": {}, "error": "the request id is missing" })),
        ),
        next_secret(),
    ]
}

/// A refused code under the status of success.
fn not_ok() -> Dialect {
    let refused = Scripted::json(200, &json!({ "ok": false, "error": "invalid_code" }));
    Dialect::new("not-ok", json!({})).refused_login(Expected::form(code(&json!({}))), refused, 400, "invalid_grant")
}

/// A grant whose access token is near its end when the provider refuses its refresh token, in words that `rule` maps.
fn dead(name: &'static str, mut rule: Value, refusal: Scripted) -> Dialect {
    rule["code"] = json!("invalid_grant");
    let login = Scripted::json(200, &hour(0, &json!({ "expires_in": 60 })));
    let outcome = json!({ "access_token": "at-0", "expires_in": 60, "status": "active" });
    Dialect::new(name, json!({ "error_codes": [rule] }))
        .login(Expected::form(code(&json!({}))), login, outcome)
        .refresh(Expected::form(renewal(0, &json!({}))), refusal, json!({ "status": "needs_reauthorization" }))
}

/// The client's first secret is refused in words of another error, the second one works for login and refresh.
fn next_secret() -> Dialect {
    let refused = || Scripted::json(400, &json!({ "error": "unauthorized_client", "error_description": "secret" }));
    let next = json!({ "client_secret": "next" });
    let login = vec![(Expected::form(code(&json!({}))), refused()), (Expected::form(code(&next)), tokens(0))];
    let refresh =
        vec![(Expected::form(renewal(0, &json!({}))), refused()), (Expected::form(renewal(0, &next)), tokens(1))];
    Dialect::new("secret", json!({ "client_secrets": ["next"] })).step(Act::Login, login, connected(0)).step(
        Act::Refresh,
        refresh,
        connected(1),
    )
}
