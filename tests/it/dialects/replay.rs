//! The server: compares each request with the next one that it expects, in every part, and answers as the dialect does.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};
use url::form_urlencoded;

use super::dialect::{Body, Expected, FORM, changed};
use crate::provider::{Provider, Received, Scripted};

const JSON: &str = "application/json";
/// Headers that HTTP itself needs.
const OF_HTTP: [&str; 2] = ["host", "content-length"];

pub(super) struct Replay {
    provider: Provider,
    redirect: String,
    script: Arc<Mutex<Script>>,
}

#[derive(Default)]
struct Script {
    /// Filled in.
    expected: Vec<(Expected, Scripted)>,
    mistakes: Vec<String>,
    /// Texts that were `*new`.
    seen: HashSet<String>,
}

impl Replay {
    pub(super) async fn start(redirect: String) -> Self {
        let script: Arc<Mutex<Script>> = Arc::default();
        let own = Arc::clone(&script);
        let provider = Provider::start(move |_, received| locked(&own).answer(received)).await;
        Self { provider, redirect, script }
    }

    /// Expects these requests next, in this order where they go to the same path.
    pub(super) fn expect(&self, dialect: &str, requests: &[(Expected, Scripted)]) {
        let filled = requests.iter().map(|(expected, answer)| {
            let Expected { method, path, headers, query, body } = expected;
            let fill = |value: &Value| self.fill(dialect, value);
            let body = match body {
                Body::None => Body::None,
                Body::Form(params) => Body::Form(fill(params)),
                Body::Json(params) => Body::Json(fill(params)),
            };
            let path = format!("/{dialect}{path}");
            (Expected { method, path, headers: fill(headers), query: fill(query), body }, answer.clone())
        });
        locked(&self.script).expected = filled.collect();
    }

    pub(super) fn is_done(&self) -> bool {
        locked(&self.script).expected.is_empty()
    }

    /// Requests that were not expected, or not in this form.
    pub(super) fn mistakes(&self) -> Vec<String> {
        locked(&self.script).mistakes.clone()
    }

    /// Replaces `{url}`, `{port}` and `{redirect}`.
    pub(super) fn fill(&self, dialect: &str, value: &Value) -> Value {
        let url = format!("{}/{dialect}", self.provider.url);
        let port = self.provider.url.rsplit(':').next().expect("a port");
        let text = value.to_string().replace("{url}", &url).replace("{port}", port);
        let text = text.replace("{redirect}", &self.redirect);
        serde_json::from_str(&text).expect("URLs need no escapes")
    }

    /// The difference between a query and the expected parameters, if there is one.
    pub(super) fn difference(&self, query: &str, expected: &Value) -> Option<String> {
        locked(&self.script).difference("parameters", &pairs(query), expected)
    }
}

fn locked(script: &Mutex<Script>) -> MutexGuard<'_, Script> {
    script.lock().expect("no test panics with the lock")
}

impl Script {
    fn answer(&mut self, received: &Received) -> Scripted {
        let is_next = |(expected, _): &(Expected, Scripted)| expected.path == received.path;
        let Some(next) = self.expected.iter().position(is_next) else {
            return self.refuse(format!("{} {} was not expected", received.method, received.path));
        };
        let (expected, answer) = self.expected.remove(next);
        match self.problem(received, &expected) {
            None => answer,
            Some(problem) => self.refuse(format!("{}: {problem}", received.path)),
        }
    }

    fn refuse(&mut self, mistake: String) -> Scripted {
        self.mistakes.push(mistake);
        Scripted::json(400, &json!({ "error": "invalid_request" }))
    }

    fn problem(&mut self, received: &Received, expected: &Expected) -> Option<String> {
        if received.method != expected.method {
            return Some(format!("{} instead of {}", received.method, expected.method));
        }
        let (content_type, body) = match &expected.body {
            Body::None => (Value::Null, None),
            Body::Form(params) => (FORM.into(), self.difference("form", &pairs(&received.body), params)),
            Body::Json(params) => (JSON.into(), self.difference("JSON", &members(&received.body), params)),
        };
        let is_unexpected = matches!(expected.body, Body::None) && !received.body.is_empty();
        let usual = json!({ "accept": JSON, "user-agent": concat!("tokenbus/", env!("CARGO_PKG_VERSION")) });
        let headers = changed(changed(usual, &json!({ "content-type": content_type })), &expected.headers);
        let is_own = |(name, _): &(&String, &String)| !OF_HTTP.contains(&name.as_str());
        let found = received.headers.iter().filter(is_own).map(|(name, value)| (name.clone(), value.clone())).collect();
        let needs_length = received.method == "POST" && !received.headers.contains_key("content-length");
        body.or_else(|| is_unexpected.then(|| format!("a body: {}", received.body)))
            .or_else(|| self.difference("query", &pairs(&received.query), &expected.query))
            .or_else(|| self.difference("headers", &found, &headers))
            .or_else(|| needs_length.then(|| "no length of the body".to_owned()))
    }

    fn difference(&mut self, place: &str, found: &BTreeMap<String, String>, expected: &Value) -> Option<String> {
        let expected = expected.as_object().expect("expected fields are an object");
        let mut is_equal = |(name, value): (&String, &Value)| {
            let found = found.get(name);
            found.is_some_and(|found| match value.as_str() {
                Some("*") => !found.is_empty(),
                Some("*new") => self.seen.insert(found.clone()),
                text => text == Some(found.as_str()),
            })
        };
        let are_equal = expected.iter().all(&mut is_equal) && found.len() == expected.len();
        (!are_equal).then(|| format!("{place} {found:?} instead of {}", Value::from(expected.clone())))
    }
}

/// Parameters by their names. A repeated one has a list as its value.
pub(super) fn pairs(form: &str) -> BTreeMap<String, String> {
    let mut pairs: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(form.as_bytes()).into_owned() {
        let given = pairs.remove(&name).map(|given| format!("{given} and "));
        pairs.insert(name, given.unwrap_or_default() + &value);
    }
    pairs
}

/// The members of a JSON object of texts.
fn members(body: &str) -> BTreeMap<String, String> {
    serde_json::from_str(body).unwrap_or_else(|error| BTreeMap::from([(body.to_owned(), error.to_string())]))
}
