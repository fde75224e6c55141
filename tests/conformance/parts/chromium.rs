//! A person at the authorization server's pages, with headless Chromium.

use super::install;
use super::visitor::Consent;
use crate::support::child::Running;
use fantoccini::wd::{WebDriverCompatibleCommand, WindowHandle};
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use reqwest::Method;
use serde_json::{Value, json};
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
        Self::start(&[]).await
    }

    /// The same with JavaScript switched off.
    pub(crate) async fn without_scripts() -> Option<Self> {
        Self::start(&["--blink-settings=scriptEnabled=false"]).await
    }

    async fn start(more: &[&str]) -> Option<Self> {
        if !install::chromium() {
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut driver = Running::start(Path::new("chromedriver"), &folder.path().join("log"), |command| {
            command.arg("--port=0");
        });
        let port = driver.line(chosen_port).await;
        let page = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities(&folder.path().join("profile"), more))
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .expect("chromedriver starts Chromium");
        Some(Self { page, _driver: driver, _folder: folder })
    }

    /// Goes from `start`, the authorization URL, through the provider's forms to the page at `callback`, and returns
    /// that page's whole URL.
    pub(crate) async fn walk(&self, start: &Url, callback: &str, consent: Consent) -> Url {
        self.page.goto(start.as_str()).await.expect("the provider's first page");
        self.answer(consent).await;
        self.arrive(callback).await
    }

    /// Opens `url` in a second window, which belongs to the page in the first, and goes there.
    pub(crate) async fn open_popup(&self, url: &str) -> Popup {
        let opener = self.page.window().await.expect("a window");
        let script = "window.open(arguments[0], 'login', 'popup,width=520,height=680')";
        self.page.execute(script, vec![url.into()]).await.expect("the page opens a window");
        let windows = self.page.windows().await.expect("the windows");
        let popup = windows.into_iter().find(|window| *window != opener).expect("a second window");
        self.page.switch_to_window(popup.clone()).await.expect("the second window is there");
        Popup { opener, popup }
    }

    /// Goes to a window.
    pub(crate) async fn show(&self, window: &WindowHandle) {
        self.page.switch_to_window(window.clone()).await.expect("the window is there");
    }

    /// The text of the one element that `css` finds, once it is there.
    pub(crate) async fn text(&self, css: &str) -> String {
        let element = self.page.wait().at_most(PAGE).for_element(Locator::Css(css)).await.expect("the element");
        element.text().await.expect("an element has text")
    }

    /// Saves what the window shows as `<name>.png` in the folder that `SCREENSHOT_DIR` names, if it does.
    pub(crate) async fn picture(&self, name: &str) {
        let Some(folder) = std::env::var_os("SCREENSHOT_DIR") else { return };
        let picture = self.page.screenshot().await.expect("a picture of the window");
        std::fs::create_dir_all(&folder).expect("a folder for pictures");
        std::fs::write(Path::new(&folder).join(format!("{name}.png")), picture).expect("the picture is saved");
    }

    /// What the consoles said of pages at `origin`.
    pub(crate) async fn console(&self, origin: &str) -> Vec<String> {
        let entries = self.page.issue_cmd(ConsoleLog).await.expect("chromedriver keeps the console");
        let entries = entries.as_array().cloned().expect("a list of entries");
        let messages = entries.iter().filter_map(|entry| entry["message"].as_str());
        messages.filter(|message| message.starts_with(origin)).map(str::to_owned).collect()
    }

    /// Fills in the provider's forms.
    pub(crate) async fn answer(&self, consent: Consent) {
        self.fill("login", "alice").await;
        self.fill("password", "correct horse").await;
        self.press("login").await;
        self.press(match consent {
            Consent::Allow => "allow",
            Consent::Deny => "deny",
        })
        .await;
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

/// A window that another one opened.
pub(crate) struct Popup {
    pub(crate) opener: WindowHandle,
    pub(crate) popup: WindowHandle,
}

/// chromedriver's own command for the console's entries.
#[derive(Debug)]
struct ConsoleLog;

impl WebDriverCompatibleCommand for ConsoleLog {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, url::ParseError> {
        base.join(&format!("session/{}/se/log", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(json!({ "type": "browser" }).to_string()))
    }
}

/// The first line names the port that was asked for, 0; a later one the port that it became.
fn chosen_port(line: &str) -> Option<u16> {
    line.split_once("successfully on port ")?.1.trim_end_matches('.').parse().ok()
}

/// Over the pipe Chromium ends with its driver, however that ends. Nothing here calls home.
fn capabilities(profile: &Path, more: &[&str]) -> fantoccini::wd::Capabilities {
    let profile = format!("--user-data-dir={}", profile.display());
    let mut arguments = vec![
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
        "--window-size=900,700",
        &profile,
    ];
    arguments.extend(more);
    let wanted: Value = json!({
        "browserName": "chrome",
        "goog:chromeOptions": { "args": arguments },
        "goog:loggingPrefs": { "browser": "ALL" },
    });
    wanted.as_object().cloned().expect("an object")
}
