//! Requests and answers of which a test can set and check every part.

use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use crate::support::tokenbus::Tokenbus;

/// A complete answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    /// Parses the body, which must be JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{}: {error}: {}", self.status, self.text))
    }

    /// The text of the error in the body.
    #[track_caller]
    pub(crate) fn error(&self) -> String {
        let body = self.json();
        body["error"].as_str().unwrap_or_else(|| panic!("no error in {body}")).to_owned()
    }

    /// A header, empty when there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("headers of plain text"))
    }

    /// Checks status and error.
    #[track_caller]
    pub(crate) fn assert_error(&self, status: u16, error: &str) {
        assert_eq!(self.status, status, "{}", self.text);
        assert!(self.error().contains(error), "`{error}` is not in {}", self.text);
    }
}

/// Sends a request and reads the whole answer.
pub(crate) async fn ask(request: RequestBuilder) -> Answer {
    let answer = request.send().await.expect("tokenbus answers");
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let text = answer.text().await.expect("a whole answer");
    Answer { status, headers, text }
}

/// A GET below `/hub/integrations/` with an API key.
pub(crate) async fn get(tokenbus: &Tokenbus, key: &str, path: &str) -> Answer {
    send(tokenbus, Method::GET, key, path).await
}

/// A request below `/hub/integrations/` with an API key.
pub(crate) async fn send(tokenbus: &Tokenbus, method: Method, key: &str, path: &str) -> Answer {
    ask(tokenbus.request(method, &format!("hub/integrations/{path}")).header("x-api-key", key)).await
}

/// The ids of a page's entries.
pub(crate) fn ids(page: &Value, field: &str) -> Vec<String> {
    let results = page["results"].as_array().unwrap_or_else(|| panic!("no results in {page}"));
    results.iter().map(|entry| entry[field].as_str().expect("an id is text").to_owned()).collect()
}

/// A new account's key.
pub(crate) fn new_account() -> String {
    nkeys::KeyPair::new_account().public_key()
}

/// A path with these parameters.
pub(crate) fn with_query(path: &str, query: &[(&str, &str)]) -> String {
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    format!("{path}?{query}")
}
