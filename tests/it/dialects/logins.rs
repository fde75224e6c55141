//! Forms of logins: the authorization request and the callback.

use serde_json::json;

use super::dialect::{Dialect, Expected, changed, code, connected, hour, renewal, tokens};
use crate::provider::Scripted;

pub(super) fn all() -> Vec<Dialect> {
    vec![
        response_type_and_code(),
        fragment_route(),
        form_post(),
        commas(),
        host_from_callback(),
        refused("foreign", "127.0.0.2", "acme"),
        refused("misfit", "127.0.0.1", "Acme"),
        parameters_of_the_login(),
        named_redirect(),
        issuer_of_tenant("acme").login(Expected::form(code(&json!({}))), tokens(0), connected(0)),
        Dialect { name: "other-tenant", ..issuer_of_tenant("other") }.unsent_login(400),
    ]
}

/// The callback has the code under another name, and a fact that the API needs.
fn response_type_and_code() -> Dialect {
    let config = json!({
        "response_type": "auth_code", "code_param": "auth_code", "callback_metadata": ["realmId"],
    });
    let callback = json!({ "code": null, "auth_code": "code-1", "realmId": "4620816365" });
    let outcome = changed(connected(0), &json!({ "metadata": { "realmId": "4620816365" } }));
    Dialect { callback, ..Dialect::new("code", config) }.authorize(json!({ "response_type": "auth_code" })).login(
        Expected::form(code(&json!({}))),
        tokens(0),
        outcome,
    )
}

/// The authorization page is one of a single-page application.
fn fragment_route() -> Dialect {
    Dialect {
        place: "{url}/#/oauth/authorize",
        ..Dialect::new("route", json!({ "auth_url": "{url}/#/oauth/authorize" }))
    }
    .login(Expected::form(code(&json!({}))), tokens(0), connected(0))
}

/// The browser posts the callback, with the user's name beside the code.
fn form_post() -> Dialect {
    let callback = json!({ "user": "{\"name\":{\"firstName\":\"Ada\"}}", "id_token": "e30.e30.e30" });
    let config = json!({ "response_mode": "form_post", "response_type": "code id_token" });
    Dialect { callback, is_posted: true, ..Dialect::new("posted", config) }
        .authorize(json!({ "response_mode": "form_post", "response_type": "code id_token" }))
        .login(Expected::form(code(&json!({}))), tokens(0), connected(0))
}

/// Scopes are separated by commas, and are a list in the answer.
fn commas() -> Dialect {
    let answer = hour(0, &json!({ "scope": ["read", "write"] }));
    let outcome = changed(connected(0), &json!({ "scope": "read write" }));
    Dialect::new("commas", json!({ "scope_separator": ",", "refresh_params": { "scope": "${scope}" } }))
        .authorize(json!({ "scope": "read,write" }))
        .login(Expected::form(code(&json!({}))), Scripted::json(200, &answer), outcome)
        .refresh(Expected::form(renewal(0, &json!({ "scope": "read write" }))), tokens(1), connected(1))
}

/// The callback names the token endpoint's host, one of a list.
fn host_from_callback() -> Dialect {
    let config = json!({
        "token_url": "http://${server}:{port}/host/token",
        "variables": { "server": { "from": "callback:accounts-server", "values": ["127.0.0.1", "127.0.0.2"],
            "metadata": true } },
    });
    let outcome = changed(connected(0), &json!({ "metadata": { "server": "127.0.0.1" } }));
    Dialect { callback: json!({ "accounts-server": "127.0.0.1" }), ..Dialect::new("host", config) }
        .login(Expected::form(code(&json!({}))), tokens(0), outcome)
        .refresh(Expected::form(renewal(0, &json!({}))), tokens(1), connected(1))
}

/// The callback names a host that the admin did not, or a value that does not match. 127.0.0.2 is the same server, which
/// expects nothing.
fn refused(name: &'static str, server: &str, site: &str) -> Dialect {
    let config = json!({
        "token_url": "http://${server}:{port}/token",
        "variables": { "server": { "from": "callback:accounts-server", "values": ["127.0.0.1"] },
            "site": { "from": "callback:site", "pattern": "[a-z]+", "metadata": true } },
    });
    let callback = json!({ "accounts-server": server, "site": site });
    Dialect { callback, ..Dialect::new(name, config) }.unsent_login(400)
}

/// The login passes parameters on, one in place of the config's.
fn parameters_of_the_login() -> Dialect {
    let config = json!({ "login_params": ["login_hint", "prompt"], "auth_params": { "prompt": "none", "x": "1" } });
    Dialect { login: "?param.login_hint=ada%40example.com&param.prompt=consent", ..Dialect::new("passed-on", config) }
        .authorize(json!({ "login_hint": "ada@example.com", "prompt": "consent", "x": "1" }))
        .login(Expected::form(code(&json!({}))), tokens(0), connected(0))
}

/// The provider wants its own name of the redirect URL.
fn named_redirect() -> Dialect {
    let name = json!({ "redirect_uri": "${ru_name}" });
    let config = json!({
        "auth_url": "{url}/authorize?request=authorize", "param_names": { "redirect_uri": "" }, "auth_params": name,
        "token_params": name, "variables": { "ru_name": { "values": ["Acme-App"], "default": "Acme-App" } },
    });
    let named = json!({ "redirect_uri": "Acme-App" });
    Dialect::new("named", config)
        .authorize(changed(named.clone(), &json!({ "request": "authorize" })))
        .login(Expected::form(code(&named)), tokens(0), connected(0))
        .refresh(Expected::form(renewal(0, &json!({}))), tokens(1), connected(1))
}

/// The callback names its issuer, which is another one for each tenant. The login is for `acme`.
fn issuer_of_tenant(tenant: &str) -> Dialect {
    let config = json!({
        "issuer": "https://id.example/${tenant}", "variables": { "tenant": { "pattern": "[a-z]+" } },
    });
    let callback = json!({ "iss": format!("https://id.example/{tenant}") });
    Dialect { callback, login: "?var.tenant=acme", ..Dialect::new("tenant", config) }
}
