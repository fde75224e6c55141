//! `tokenbus config new` at a terminal: its questions, the hidden secret, and the config that arrives.

use std::path::Path;

use pty_process::{Command, Pty};
use rustix::termios::{LocalModes, tcgetattr};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Child;
use tokio::time::timeout;

use crate::http_providers::write_profile;
use crate::provider::Provider;
use crate::support::tokenbus::{PROGRAM, settings};
use crate::support::wait::{PATIENCE, eventually};
use crate::world::{World, parameter};

/// The program at a terminal of its own.
struct Terminal {
    pty: Pty,
    child: Child,
    /// All that the terminal has shown.
    shown: String,
    /// How much of it earlier questions have used.
    read: usize,
}

impl Terminal {
    fn start(world: &World, arguments: &[&str]) -> Self {
        let (pty, pts) = pty_process::open().expect("a pseudo terminal");
        let tokenbus = &world.tokenbus;
        let mut command = Command::new(PROGRAM).args(arguments).kill_on_drop(true);
        command = command.envs(settings(&tokenbus.nats, "admin", Path::new("/nonexistent")));
        command = command.env("TOKENBUS_CLI__API_KEY", &tokenbus.admin_key);
        command = command.env("TOKENBUS_HTTP__PUBLIC_URL", tokenbus.endpoint("").as_str());
        let child = command.spawn(pts).expect("the program starts");
        Self { pty, child, shown: String::new(), read: 0 }
    }

    /// Waits for a text after those that were waited for.
    async fn sees(&mut self, text: &str) {
        loop {
            if let Some(at) = self.shown[self.read..].find(text) {
                self.read += at + text.len();
                return;
            }
            assert!(self.read_more().await, "`{text}` is not in\n{}", self.shown);
        }
    }

    /// Returns false at the end: Linux then fails the read.
    async fn read_more(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let count = timeout(PATIENCE, self.pty.read(&mut bytes)).await.expect("the program goes on").unwrap_or(0);
        self.shown += std::str::from_utf8(&bytes[..count]).expect("text");
        count > 0
    }

    async fn types(&mut self, line: &str) {
        self.pty.write_all(format!("{line}\n").as_bytes()).await.expect("the terminal takes a line");
    }

    /// Waits until the terminal does not show what is typed.
    async fn hides_input(&self) {
        let is_hidden = async || !tcgetattr(&self.pty).expect("a terminal").local_modes.contains(LocalModes::ECHO);
        eventually("the terminal hides what is typed", is_hidden).await;
    }

    /// Returns the exit code, and all that was shown.
    async fn ended(mut self) -> (Option<i32>, String) {
        while self.read_more().await {}
        let status = timeout(PATIENCE, self.child.wait()).await.expect("the program ends").expect("a status");
        (status.code(), self.shown)
    }
}

async fn world() -> (World, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("a path of text").to_owned();
    let world = World::with_settings(Provider::generous().await, &[("OAUTH__PROVIDERS_DIR", &path)]).await;
    write_profile(&folder, &world.provider.url, "read");
    (world, folder)
}

#[tokio::test]
async fn a_person_is_asked_for_what_a_config_needs_and_the_secret_stays_hidden() {
    let (world, _folder) = world().await;
    let mut terminal = Terminal::start(&world, &["config", "new", "acme"]);
    terminal.sees("Register an app at https://acme.example/apps").await;
    terminal.sees("Its redirect URL goes to: Callback URL").await;
    terminal.sees(&format!("Redirect URL [{}]: ", world.tokenbus.callback())).await;
    terminal.types("").await;
    terminal.sees("Client id: ").await;
    terminal.types("client").await;
    terminal.sees("Client secret: ").await;
    terminal.hides_input().await;
    terminal.types("canary-typed-secret").await;
    terminal.sees("Scopes, comma-separated [read]: ").await;
    terminal.types("read,write").await;
    terminal.sees("config of acme stored").await;
    let (code, shown) = terminal.ended().await;
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("Client id: client\r\n") && !shown.contains("canary"), "{shown}");

    let url = world.tokenbus.login("acme", "one").await;
    assert_eq!(
        (parameter(&url, "client_id"), parameter(&url, "scope")),
        ("client".to_owned(), "read write".to_owned())
    );
    let callback = world.callback(&[("code", "canary-code"), ("state", &parameter(&url, "state"))]);
    assert_eq!(world.tokenbus.arrive(&callback).await.0, 200, "it works");
    assert_eq!(world.provider.received()[0].form()["client_secret"], "canary-typed-secret");
}

#[tokio::test]
async fn a_closed_terminal_stores_no_config() {
    let (world, _folder) = world().await;
    let mut terminal = Terminal::start(&world, &["config", "new", "acme"]);
    terminal.sees("Redirect URL").await;
    terminal.types("").await;
    terminal.sees("Client id: ").await;
    // End of file.
    terminal.pty.write_all(b"\x04").await.expect("the terminal takes a key");
    let (code, shown) = terminal.ended().await;
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("the input ended before the question was answered"), "{shown}");
    assert_eq!(world.tokenbus.get("acme/oauth-config").await, 404);
}
