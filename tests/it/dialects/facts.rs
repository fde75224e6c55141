//! Forms of what follows a login: a second exchange, and questions about the account and its API.

use serde_json::{Value, json};

use super::dialect::{Act, Dialect, Expected, changed, code, connected, hour, renewal, tokens};
use crate::provider::Scripted;

pub(super) fn all() -> Vec<Dialect> {
    vec![long_lived(), raw_token(), empty_post(), list(), later(), in_token_answer(), in_callback()]
}

type Request = (Expected, Scripted);

fn exchange(answer: Scripted) -> Request {
    (Expected::form(code(&json!({}))), answer)
}

/// A request to the API, with the token in this header, or in none.
fn api(path: &'static str, token: Option<&str>, expected: Expected, answer: &Value) -> Request {
    let headers = token.map_or_else(|| json!({}), |token| json!({ "authorization": token }));
    (expected.path(path).headers(headers), Scripted::json(200, answer))
}

fn get(query: Value) -> Expected {
    Expected::query("GET", query)
}

fn ada() -> Value {
    json!({ "id": "17", "label": "ada@example.com" })
}

/// The token of the exchange buys one that lives longer; the API reads that one as a parameter.
fn long_lived() -> Dialect {
    let bought = json!({
        "grant_type": "exchange_token", "client_id": "client", "client_secret": "s", "fb_token": "at-0",
    });
    let config = json!({
        "upgrade": { "url": "{url}/exchange", "params": {
            "grant_type": "exchange_token", "client_id": "${client_id}", "client_secret": "${client_secret}",
            "fb_token": "${access_token}",
        } },
        "identity": { "url": "{url}/me", "params": { "fields": "id,email" }, "token_param": "access_token",
            "id": "id", "label": "email" },
    });
    let short = hour(0, &json!({ "refresh_token": null }));
    let long = json!({ "access_token": "long", "token_type": "bearer", "expires_in": 5_183_944 });
    let me = json!({ "id": "17", "email": "ada@example.com" });
    let requests = vec![
        exchange(Scripted::json(200, &short)),
        api("/exchange", None, get(bought), &long),
        api("/me", None, get(json!({ "fields": "id,email", "access_token": "long" })), &me),
    ];
    let outcome = json!({ "access_token": "long", "expires_in": 5_183_944, "identity": ada(), "status": "active" });
    Dialect::new("bought", config).step(Act::Login, requests, outcome)
}

/// The API is one of GraphQL, and reads the token without a scheme.
fn raw_token() -> Dialect {
    let question = json!({ "query": "query { me { id email } }" });
    let config = json!({ "identity": {
        "url": "{url}/v2", "method": "POST", "headers": { "Authorization": "${access_token}", "API-Version": "2025-01" },
        "body": question, "id": "data.me.id", "label": ["data.me.nick", "data.me.email"],
    } });
    let me = json!({ "data": { "me": { "id": 17, "nick": "", "email": "ada@example.com" } } });
    let headers = json!({ "authorization": "at-0", "api-version": "2025-01" });
    let asked = (Expected::json(question).path("/v2").headers(headers), Scripted::json(200, &me));
    let outcome = changed(connected(0), &json!({ "identity": ada() }));
    Dialect::new("raw-token", config).step(Act::Login, vec![exchange(tokens(0)), asked], outcome)
}

/// A POST without parameters has no body and no type of one.
fn empty_post() -> Dialect {
    let config = json!({
        "identity": { "url": "{url}/2/users/me", "method": "POST", "id": "account_id", "label": "email" },
    });
    let me = json!({ "account_id": "17", "email": "ada@example.com" });
    let asked = api("/2/users/me", Some("Bearer at-0"), Expected::query("POST", json!({})), &me);
    let outcome = changed(connected(0), &json!({ "identity": ada() }));
    Dialect::new("empty-post", config).step(Act::Login, vec![exchange(tokens(0)), asked], outcome)
}

/// The API's host is called by ids from a list of sites.
fn list() -> Dialect {
    let config = json!({
        "token_headers": { "X-Version": "7" }, "variables": { "cloud": { "pattern": "[a-z]+", "default": "eu" } },
        "metadata_request": { "url": "{url}/${cloud}/sites?all=1", "paths": ["0.id", "0.url", "1.id"] },
        "identity": { "url": "{url}/me", "id": "account_id", "label": "email" },
    });
    let headers = json!({ "x-version": "7", "authorization": "Bearer at-0" });
    let sites = json!([{ "id": "s-1", "url": "https://acme.example" }]);
    let me = json!({ "account_id": 17, "email": "ada@example.com" });
    let (exchange, answer) = exchange(tokens(0));
    let requests = vec![
        (exchange.headers(json!({ "x-version": "7" })), answer),
        (get(json!({ "all": "1" })).path("/eu/sites").headers(headers.clone()), Scripted::json(200, &sites)),
        (get(json!({})).path("/me").headers(headers), Scripted::json(200, &me)),
    ];
    let metadata = json!({ "0.id": "s-1", "0.url": "https://acme.example" });
    let outcome = changed(connected(0), &json!({ "identity": ada(), "metadata": metadata }));
    Dialect::new("list", config).step(Act::Login, requests, outcome)
}

/// An API that fails at the login is asked again at the next refresh.
fn later() -> Dialect {
    let config = json!({ "identity": { "url": "{url}/me", "id": "sub", "label": "email" } });
    let me = json!({ "sub": "17", "email": "ada@example.com" });
    let (asked, _) = api("/me", Some("Bearer at-0"), get(json!({})), &me);
    let failed = (asked.clone(), Scripted::new(503, "text/html", "<h1>Try later</h1>"));
    let again = vec![(asked, Scripted::json(200, &me)), (Expected::form(renewal(0, &json!({}))), tokens(1))];
    Dialect::new("later", config)
        .step(Act::Login, vec![exchange(tokens(0)), failed], json!({ "access_token": "at-0", "identity": null }))
        .step(Act::Refresh, again, changed(connected(1), &json!({ "identity": ada() })))
}

/// Nothing is asked: the token answer says it.
fn in_token_answer() -> Dialect {
    let config = json!({ "identity": { "id": ["team.id", "user_id"], "label": "team.name" } });
    let answer = hour(0, &json!({ "user_id": 17, "team": { "name": "ada@example.com" } }));
    let outcome = changed(connected(0), &json!({ "identity": ada() }));
    Dialect::new("told", config).step(Act::Login, vec![exchange(Scripted::json(200, &answer))], outcome)
}

/// Nothing is asked: the callback says it.
fn in_callback() -> Dialect {
    let config = json!({ "callback_metadata": ["realmId"], "identity": { "id": ["user_id", "realmId"] } });
    let fact = json!({ "realmId": "17" });
    let outcome = changed(connected(0), &json!({ "identity": { "id": "17" }, "metadata": fact }));
    Dialect { callback: fact, ..Dialect::new("in-callback", config) }.step(
        Act::Login,
        vec![exchange(tokens(0))],
        outcome,
    )
}
