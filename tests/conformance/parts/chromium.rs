//! A person at the authorization server's pages, with headless Chromium.

use super::install;
use super::visitor::Consent;
use crate::support::child::Running;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::json;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};
use url::Url;

/// How long a page may take.
const PAGE: Duration = Duration::from_secs(30);

/// A browser with a profile of its own. End it with [`Browser::close`].
pub(crate) struct Browser {
    pub(crate) page: Client,
    _driver: Running,
    _folder: TempDir,
}

impl Browser {
    /// A new browser, or `None` (and a line that says so) where there is no Chromium.
    pub(crate) async fn open() -> Option<Self> {
        if !install::chromium() {
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut driver = Running::start(Path::new("chromedriver"), &folder.path().join("log"), |command| {
            command.arg("--port=0");
        });
        let port = driver.line(chosen_port).await;
        let page = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities(&folder.path().join("profile")))
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .expect("chromedriver starts Chromium");
        Some(Self { page, _driver: driver, _folder: folder })
    }

    /// Goes from `start`, the authorization URL, through the provider's forms to the page at `callback`, and returns
    /// that page's whole URL.
    pub(crate) async fn walk(&self, start: &Url, callback: &str, consent: Consent) -> Url {
        self.page.goto(start.as_str()).await.expect("the provider's first page");
        self.fill("login", "alice").await;
        self.fill("password", "correct horse").await;
        self.press("login").await;
        self.press(match consent {
            Consent::Allow => "allow",
            Consent::Deny => "deny",
        })
        .await;
        self.arrive(callback).await
    }

    /// Waits for a page whose URL begins with `prefix`.
    pub(crate) async fn arrive(&self, prefix: &str) -> Url {
        let poll = async {
            loop {
                let here = self.page.current_url().await.expect("a page has a URL");
                if here.as_str().starts_with(prefix) {
                    return here;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PAGE, poll).await.unwrap_or_else(|_| panic!("the browser never came to {prefix}"))
    }

    /// Ends browser and driver.
    pub(crate) async fn close(self) {
        self.page.close().await.expect("Chromium ends");
    }

    async fn fill(&self, field: &str, value: &str) {
        let field = format!("input[name={field}]");
        let element = self.page.wait().at_most(PAGE).for_element(Locator::Css(&field)).await.expect("the field");
        element.send_keys(value).await.expect("the field takes text");
    }

    async fn press(&self, decision: &str) {
        let button = format!("button[value={decision}]");
        let element = self.page.wait().at_most(PAGE).for_element(Locator::Css(&button)).await.expect("the button");
        element.click().await.expect("the button can be pressed");
    }
}

/// The first line names the port that was asked for, 0; a later one the port that it became.
fn chosen_port(line: &str) -> Option<u16> {
    line.split_once("successfully on port ")?.1.trim_end_matches('.').parse().ok()
}

/// Over the pipe Chromium ends with its driver, however that ends. Nothing here calls home.
fn capabilities(profile: &Path) -> fantoccini::wd::Capabilities {
    let profile = format!("--user-data-dir={}", profile.display());
    let arguments = [
        "--headless=new",
        "--remote-debugging-pipe",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        &profile,
    ];
    let wanted = json!({ "browserName": "chrome", "goog:chromeOptions": { "args": arguments } });
    wanted.as_object().cloned().expect("an object")
}
