//! Descriptions of dialects: a config, what the server expects to be asked, its answers, and what becomes of the connection.
//!
//! In texts `{url}` stands for the server's URL of the dialect, `{port}` for its port, and `{redirect}` for the callback. In what the server expects
//! `*` stands for any text, and `*new` for a text that no earlier request had.

use serde_json::{Map, Value, json};
use url::form_urlencoded;

use crate::provider::Scripted;

pub(super) const FORM: &str = "application/x-www-form-urlencoded";

pub(super) struct Dialect {
    /// The integration, and the first segment of its paths at the server.
    pub(super) name: &'static str,
    /// Changes of the usual config.
    pub(super) config: Value,
    /// Query of the request for a login.
    pub(super) login: &'static str,
    /// The authorization request left of its parameters.
    pub(super) place: &'static str,
    /// Changes of the usual parameters of an authorization request.
    pub(super) authorize: Value,
    /// Changes of the callback's usual parameters.
    pub(super) callback: Value,
    /// True if the browser posts the callback.
    pub(super) is_posted: bool,
    pub(super) steps: Vec<Step>,
}

pub(super) struct Step {
    pub(super) act: Act,
    /// The requests that the server expects, with its answers.
    pub(super) requests: Vec<(Expected, Scripted)>,
    /// The status of tokenbus's answer.
    pub(super) status: u16,
    /// Fields of the connection or of the error.
    pub(super) outcome: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Login,
    /// A request for a token that is valid for a day, then one for the token as it is.
    Refresh,
    Delete,
}

/// A request as the server expects it, with exactly these parameters.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    pub(super) method: &'static str,
    /// Below `{url}`.
    pub(super) path: String,
    /// Changes of the usual headers.
    pub(super) headers: Value,
    pub(super) query: Value,
    pub(super) body: Body,
}

#[derive(Debug, Clone)]
pub(super) enum Body {
    None,
    Form(Value),
    Json(Value),
}

impl Dialect {
    pub(super) fn new(name: &'static str, config: Value) -> Self {
        let (login, place) = ("", "{url}/authorize");
        let (authorize, callback, is_posted, steps) = (json!({}), json!({}), false, Vec::new());
        Self { name, config, login, place, authorize, callback, is_posted, steps }
    }

    pub(super) fn authorize(self, authorize: Value) -> Self {
        Self { authorize, ..self }
    }

    /// The server is asked for tokens, and the connection has them.
    pub(super) fn login(self, expected: Expected, answer: Scripted, outcome: Value) -> Self {
        self.step(Act::Login, vec![(expected, answer)], outcome)
    }

    /// The server refuses the code, and tokenbus answers with this status and error.
    pub(super) fn refused_login(mut self, expected: Expected, answer: Scripted, status: u16, error: &str) -> Self {
        let (requests, outcome) = (vec![(expected, answer)], json!({ "error": error }));
        self.steps.push(Step { act: Act::Login, requests, status, outcome });
        self
    }

    /// The callback is refused with this status before the server is asked for anything.
    pub(super) fn unsent_login(mut self, status: u16) -> Self {
        self.steps.push(Step { act: Act::Login, requests: Vec::new(), status, outcome: json!({}) });
        self
    }

    pub(super) fn refresh(self, expected: Expected, answer: Scripted, outcome: Value) -> Self {
        self.step(Act::Refresh, vec![(expected, answer)], outcome)
    }

    pub(super) fn step(mut self, act: Act, requests: Vec<(Expected, Scripted)>, outcome: Value) -> Self {
        self.steps.push(Step { act, requests, status: 200, outcome });
        self
    }
}

impl Expected {
    /// A POST of a form to the token endpoint.
    pub(super) fn form(params: Value) -> Self {
        Self { method: "POST", path: "/token".into(), headers: json!({}), query: json!({}), body: Body::Form(params) }
    }

    pub(super) fn json(params: Value) -> Self {
        Self { body: Body::Json(params), ..Self::form(json!({})) }
    }

    /// A request without a body.
    pub(super) fn query(method: &'static str, query: Value) -> Self {
        Self { method, query, body: Body::None, ..Self::form(json!({})) }
    }

    pub(super) fn method(self, method: &'static str) -> Self {
        Self { method, ..self }
    }

    /// With a form in place of the body.
    pub(super) fn params(self, params: Value) -> Self {
        Self { body: Body::Form(params), ..self }
    }

    pub(super) fn path(self, path: &'static str) -> Self {
        Self { path: path.into(), ..self }
    }

    pub(super) fn headers(self, headers: Value) -> Self {
        Self { headers, ..self }
    }
}

/// The parameters of a usual request for a code's tokens, with changes.
pub(super) fn code(changes: &Value) -> Value {
    let usual = json!({
        "grant_type": "authorization_code", "code": "code-1", "redirect_uri": "{redirect}", "code_verifier": "*",
        "client_id": "client", "client_secret": "s",
    });
    changed(usual, changes)
}

/// The parameters of a usual refresh with the token `rt-<number>`, with changes.
pub(super) fn renewal(number: usize, changes: &Value) -> Value {
    let usual = json!({
        "grant_type": "refresh_token", "refresh_token": format!("rt-{number}"), "client_id": "client",
        "client_secret": "s",
    });
    changed(usual, changes)
}

/// A usual answer with the tokens `at-<number>` and `rt-<number>`, valid for an hour.
pub(super) fn tokens(number: usize) -> Scripted {
    Scripted::json(200, &hour(number, &json!({})))
}

/// The fields of [`tokens`] with changes.
pub(super) fn hour(number: usize, changes: &Value) -> Value {
    let usual = json!({
        "access_token": format!("at-{number}"), "refresh_token": format!("rt-{number}"), "token_type": "Bearer",
        "expires_in": 3600,
    });
    changed(usual, changes)
}

/// The fields of a connection with [`tokens`].
pub(super) fn connected(number: usize) -> Value {
    json!({
        "access_token": format!("at-{number}"), "refresh_token": format!("rt-{number}"), "expires_in": 3600,
        "status": "active",
    })
}

/// An object with changes; null removes a field.
pub(super) fn changed(object: Value, changes: &Value) -> Value {
    let Value::Object(mut fields) = object else { panic!("no object: {object}") };
    for (name, value) in changes.as_object().expect("changes are an object") {
        if value.is_null() {
            fields.remove(name);
        } else {
            fields.insert(name.clone(), value.clone());
        }
    }
    Value::Object(fields)
}

/// Encodes an object of texts as a form.
pub(super) fn form_of(fields: &Value) -> String {
    let fields: &Map<String, Value> = fields.as_object().expect("an object");
    let pairs = fields.iter().map(|(name, value)| (name, value.as_str().expect("a text")));
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}
