//! A person at the authorization server's pages, with headless Chromium.

use super::install;
use super::visitor::Consent;
use super::webdriver::{Page, Window};
use crate::support::child::Running;
use serde_json::{Value, json};
use std::path::Path;
use tempfile::TempDir;
use url::Url;

/// A browser with a profile of its own. End it with [`Browser::close`].
pub(crate) struct Browser {
    pub(crate) page: Page,
    _driver: Running,
    _folder: TempDir,
}

impl Browser {
    /// A new browser; `None`, with a printed reason, without Chromium.
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
        let page = Page::start(port, capabilities(&folder.path().join("profile"), more)).await;
        Some(Self { page, _driver: driver, _folder: folder })
    }

    /// Goes from `start`, the authorization URL, through the provider's forms to the page at `callback`, and returns
    /// that page's whole URL.
    pub(crate) async fn walk(&self, start: &Url, callback: &str, consent: Consent) -> Url {
        self.page.goto(start.as_str()).await;
        self.answer(consent).await;
        self.arrive(callback).await
    }

    /// Opens `url` in a second window, whose opener is the page in the first, and switches to that window.
    pub(crate) async fn open_popup(&self, url: &str) -> Popup {
        let opener = self.page.window().await;
        let script = "window.open(arguments[0], 'login', 'popup,width=520,height=680')";
        self.page.execute(script, &[url]).await;
        let popup = self.page.windows().await.into_iter().find(|window| *window != opener).expect("a second window");
        self.page.switch_to(&popup).await;
        Popup { opener, popup }
    }

    /// Switches to a window.
    pub(crate) async fn show(&self, window: &Window) {
        self.page.switch_to(window).await;
    }

    /// Waits for the element that `css` selects, and returns its text.
    pub(crate) async fn text(&self, css: &str) -> String {
        self.page.element(css).await.text().await
    }

    /// Saves a screenshot as `<name>.png` in the folder `SCREENSHOT_DIR`, if that variable is set.
    pub(crate) async fn picture(&self, name: &str) {
        let Some(folder) = std::env::var_os("SCREENSHOT_DIR") else { return };
        let picture = self.page.screenshot().await;
        std::fs::create_dir_all(&folder).expect("a folder for pictures");
        std::fs::write(Path::new(&folder).join(format!("{name}.png")), picture).expect("the picture is saved");
    }

    /// Console messages of pages at `origin`.
    pub(crate) async fn console(&self, origin: &str) -> Vec<String> {
        let entries = self.page.console().await;
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
        self.page.arrive(prefix).await
    }

    /// Ends browser and driver.
    pub(crate) async fn close(self) {
        self.page.close().await;
    }

    async fn fill(&self, field: &str, value: &str) {
        self.page.element(&format!("input[name={field}]")).await.type_in(value).await;
    }

    async fn press(&self, decision: &str) {
        self.page.element(&format!("button[value={decision}]")).await.click().await;
    }
}

/// A window that another one opened.
pub(crate) struct Popup {
    pub(crate) opener: Window,
    pub(crate) popup: Window,
}

/// The first line names the requested port, 0; a later one the port that the system assigned.
fn chosen_port(line: &str) -> Option<u16> {
    line.split_once("successfully on port ")?.1.trim_end_matches('.').parse().ok()
}

/// With the pipe, Chromium ends when its driver ends, in any way. The flags disable background requests.
fn capabilities(profile: &Path, more: &[&str]) -> Value {
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
    json!({
        "browserName": "chrome",
        "goog:chromeOptions": { "args": arguments },
        "goog:loggingPrefs": { "browser": "ALL" },
    })
}
