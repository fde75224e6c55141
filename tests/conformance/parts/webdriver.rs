//! The part of `WebDriver` (W3C) that the tests need.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use url::Url;

/// Longest time for a page, or an element on it, to appear.
const PAGE: Duration = Duration::from_secs(30);
/// The JSON key of an element in a driver's answer (§12.2).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A session with a driver: one browser.
pub(crate) struct Page {
    http: reqwest::Client,
    session: String,
}

/// A window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Window(String);

/// An element of the page that is shown.
pub(crate) struct Element<'a> {
    page: &'a Page,
    id: String,
}

impl Page {
    /// Starts a browser with the driver on that port.
    pub(crate) async fn start(port: u16, capabilities: Value) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
        let driver = format!("http://127.0.0.1:{port}/session");
        let mut page = Self { http, session: driver.clone() };
        let body = json!({ "capabilities": { "alwaysMatch": capabilities } });
        let started = page.post("", body).await;
        page.session = format!("{driver}/{}", started["sessionId"].as_str().expect("a session has an id"));
        page
    }

    pub(crate) async fn goto(&self, url: &str) {
        self.post("/url", json!({ "url": url })).await;
    }

    pub(crate) async fn current_url(&self) -> Url {
        self.text("/url").await.parse().expect("a page has a URL")
    }

    pub(crate) async fn source(&self) -> String {
        self.text("/source").await
    }

    /// Sets the window's size in pixels.
    pub(crate) async fn resize(&self, width: u32, height: u32) {
        self.post("/window/rect", json!({ "width": width, "height": height })).await;
    }

    /// The cookies of the page that is shown.
    pub(crate) async fn cookies(&self) -> Vec<Value> {
        self.get("/cookie").await.as_array().cloned().expect("a list of cookies")
    }

    /// A screenshot of the window, as PNG.
    pub(crate) async fn screenshot(&self) -> Vec<u8> {
        BASE64_STANDARD.decode(self.text("/screenshot").await).expect("a picture is in base64")
    }

    pub(crate) async fn window(&self) -> Window {
        Window(self.text("/window").await)
    }

    pub(crate) async fn windows(&self) -> Vec<Window> {
        let handles = self.get("/window/handles").await;
        let handles = handles.as_array().expect("a list of windows").iter();
        handles.map(|handle| Window(handle.as_str().expect("a window is a text").to_owned())).collect()
    }

    pub(crate) async fn switch_to(&self, window: &Window) {
        self.post("/window", json!({ "handle": window.0 })).await;
    }

    /// Runs a script and returns its result.
    pub(crate) async fn execute(&self, script: &str, arguments: &[&str]) -> Value {
        self.post("/execute/sync", json!({ "script": script, "args": arguments })).await
    }

    /// The console's log (chromedriver's own command).
    pub(crate) async fn console(&self) -> Vec<Value> {
        let entries = self.post("/se/log", json!({ "type": "browser" })).await;
        entries.as_array().cloned().expect("a list of entries")
    }

    /// Waits for the element that `css` selects.
    pub(crate) async fn element(&self, css: &str) -> Element<'_> {
        let wanted = json!({ "using": "css selector", "value": css });
        let poll = async {
            loop {
                if let Ok(found) = self.command(Method::POST, "/element", Some(&wanted)).await {
                    let id = found[ELEMENT].as_str().expect("an element has an id").to_owned();
                    return Element { page: self, id };
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PAGE, poll).await.unwrap_or_else(|_| panic!("no {css} on the page"))
    }

    /// Waits for a page whose URL begins with `prefix`.
    pub(crate) async fn arrive(&self, prefix: &str) -> Url {
        let poll = async {
            loop {
                let here = self.current_url().await;
                if here.as_str().starts_with(prefix) {
                    return here;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PAGE, poll).await.unwrap_or_else(|_| panic!("the browser never came to {prefix}"))
    }

    /// Ends the browser.
    pub(crate) async fn close(self) {
        self.command(Method::DELETE, "", None).await.expect("the browser ends");
    }

    async fn text(&self, path: &str) -> String {
        self.get(path).await.as_str().unwrap_or_else(|| panic!("{path} is no text")).to_owned()
    }

    async fn get(&self, path: &str) -> Value {
        self.command(Method::GET, path, None).await.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let done = self.command(Method::POST, path, Some(&body)).await;
        done.unwrap_or_else(|error| panic!("{path} {body}: {error}"))
    }

    /// The driver's answer: a value, or an error.
    async fn command(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Value> {
        let mut request = self.http.request(method, format!("{}{path}", self.session));
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.expect("the driver answers");
        let status = answer.status();
        let value = answer.json::<Value>().await.expect("the driver answers in JSON")["value"].take();
        if status == StatusCode::OK { Ok(value) } else { Err(value) }
    }
}

impl Element<'_> {
    pub(crate) async fn text(&self) -> String {
        self.page.text(&format!("/element/{}/text", self.id)).await
    }

    pub(crate) async fn click(&self) {
        self.page.post(&format!("/element/{}/click", self.id), json!({})).await;
    }

    pub(crate) async fn type_in(&self, text: &str) {
        self.page.post(&format!("/element/{}/value", self.id), json!({ "text": text })).await;
    }
}
