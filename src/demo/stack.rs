//! The processes of the demo, on free ports, with one temporary folder: one nats-server, worker and gateway, or a cluster.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use super::Options;
use super::client::{Browser, Gateway};
use super::process::{Child, Folder};
use super::servers;
use crate::jetstream::{Nats, Patience};
use crate::secret::Secret;
use crate::{config, system};

/// Tenant account in `nats/tenants.conf`.
pub(super) const ACCOUNT: &str = "AC75JGNMJHTRQNXCBDMIAJCJ57HAEWP2RGWXJCIFFGW2K64OKG267A2D";
/// Longest time for one process to start.
const START: Duration = Duration::from_secs(30);
/// Interval of the check whether a process has started.
const LOOK: Duration = Duration::from_millis(20);
/// Most bytes of each stream and bucket: together they fit into 1 GiB.
const MAX_BYTES: i64 = 100 << 20;
/// Address of a gateway that keeps running, if the port is free: providers know an app by its redirect URL.
const LASTING_ADDRESS: &str = "127.0.0.1:8080";
const ANY_PORT: &str = "127.0.0.1:0";
const USERS: [&str; 7] = ["worker", "setup", "operator", "admin", "edge", "demo", "system"];

/// The running processes, in start order.
pub(super) struct Stack {
    /// Addresses of all servers, with commas.
    pub(super) nats_url: String,
    replicas: usize,
    /// Address of the gateway.
    listen: &'static str,
    children: Vec<Child>,
    passwords: BTreeMap<&'static str, Secret>,
    folder: Folder,
}

impl Stack {
    pub(super) fn new() -> anyhow::Result<Self> {
        let passwords = USERS.into_iter().map(|user| (user, random("pw"))).collect();
        Ok(Self {
            nats_url: String::new(),
            replicas: 1,
            listen: ANY_PORT,
            children: Vec::new(),
            passwords,
            folder: Folder::new()?,
        })
    }

    /// Starts everything and waits until the gateway reports ready.
    pub(super) async fn start(&mut self, options: &Options) -> anyhow::Result<Gateway> {
        if options.stay && std::net::TcpListener::bind(LASTING_ADDRESS).is_ok() {
            self.listen = LASTING_ADDRESS;
        }
        self.start_nats(options).await?;
        self.command("worker", &["keys", "generate"]).await?;
        self.set_up().await?;
        let (workers, more_gateways) = if options.cluster.is_some() { (3, 1) } else { (1, 0) };
        for number in 1..=workers {
            self.serve("worker", number)?;
        }
        let browser = Browser::new()?;
        let url = self.start_gateway(&browser, 1).await?;
        self.listen = ANY_PORT;
        for number in 2..2 + more_gateways {
            self.start_gateway(&browser, number).await?;
        }
        let arguments = ["api-keys", "create", "--account", ACCOUNT, "--role", "admin", "--name", "demo", "--json"];
        let made = self.command("admin", &arguments).await?;
        let api_key = parse_api_key(&made).context("`api-keys create` printed no key")?;
        Ok(Gateway { browser, url, api_key })
    }

    async fn start_nats(&mut self, options: &Options) -> anyhow::Result<()> {
        let end = Instant::now() + START;
        let mut commands = servers::commands(options, &self.folder)?;
        let key = random("js");
        for server in &mut commands {
            server.command.env("NATS_JETSTREAM_KEY", key.expose());
            for (user, password) in &self.passwords {
                server.command.env(format!("NATS_{}_PASSWORD", user.to_uppercase()), password.expose());
            }
            self.children.push(Child::start_kept(&server.name, &server.command, &self.folder)?);
        }
        for (child, server) in commands.iter().enumerate() {
            let address = loop {
                if let Some(address) = servers::address(&server.ports_folder) {
                    break address;
                }
                self.must_run()?;
                if Instant::now() > end {
                    bail!("{} did not write its ports file", server.name);
                }
                sleep(LOOK).await;
            };
            let comma = if self.nats_url.is_empty() { "" } else { "," };
            self.nats_url = format!("{}{comma}{address}", self.nats_url);
            if let Some(child) = self.children.get_mut(child) {
                child.address = address;
            }
        }
        self.replicas = commands.len();
        Ok(())
    }

    /// Makes streams and buckets. A new cluster refuses until its nodes have elected a leader.
    async fn set_up(&mut self) -> anyhow::Result<()> {
        let end = Instant::now() + START;
        loop {
            match self.command("setup", &["setup"]).await {
                Ok(_) => return Ok(()),
                Err(error) if self.replicas == 1 || Instant::now() > end => return Err(error),
                Err(_) => sleep(LOOK).await,
            }
            self.must_run()?;
        }
    }

    /// Builds a command of this program for a NATS user, with the demo's settings only.
    fn program(&self, user: &str) -> anyhow::Result<Command> {
        let mut command = Command::new(std::env::current_exe().context("cannot find this program's path")?);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TOKENBUS_") {
                command.env_remove(name);
            }
        }
        let admins = format!("[{ACCOUNT}]");
        command
            .env("TOKENBUS_NATS__URL", &self.nats_url)
            .env("TOKENBUS_NATS__REPLICAS", self.replicas.to_string())
            .env("TOKENBUS_NATS__USER", user)
            .env("TOKENBUS_NATS__PASSWORD", self.password(user))
            .env("TOKENBUS_SECRETS__KEYS_FILE", self.folder.path().join("keys"))
            .env("TOKENBUS_HTTP__LISTEN", self.listen)
            .env("TOKENBUS_HTTP__SHUTDOWN_DELAY", "0")
            .env("TOKENBUS_HTTP__DRAIN", "2s")
            .env("TOKENBUS_WORKER__DRAIN", "2s")
            .env("TOKENBUS_OAUTH__ALLOW_INSECURE_URLS", "true")
            .env("TOKENBUS_OAUTH__ALLOWED_HOSTS", "[\"127.0.0.1\"]")
            .env("TOKENBUS_AUTH__ADMIN_ACCOUNTS", admins)
            .env("TOKENBUS_LOG__FILTER", "warn");
        for name in config::MaxBytes::NAMES {
            command.env(format!("TOKENBUS_NATS__MAX_BYTES__{}", name.to_uppercase()), MAX_BYTES.to_string());
        }
        Ok(command)
    }

    /// Runs a command and returns its standard output.
    async fn command(&self, user: &str, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
        let mut command = self.program(user)?;
        let what = format!("`tokenbus {}`", arguments.join(" "));
        command.args(arguments).stdin(std::process::Stdio::null()).kill_on_drop(true);
        let output = timeout(START, command.output()).await.with_context(|| format!("{what} timed out"))??;
        if !output.status.success() {
            bail!("{what}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
        }
        Ok(output.stdout)
    }

    /// Starts a gateway, waits until it reports ready, and returns its URL.
    async fn start_gateway(&mut self, browser: &Browser, number: u32) -> anyhow::Result<String> {
        self.serve("edge", number)?;
        let edge = self.children.last_mut().context("no gateway")?;
        let line = edge.line().await?;
        let url = line.strip_prefix("listening on ").context("the gateway did not print its address")?.to_owned();
        edge.address.clone_from(&url);
        self.until_ready(browser, &url).await?;
        Ok(url)
    }

    fn serve(&mut self, role: &str, number: u32) -> anyhow::Result<()> {
        let mut command = self.program(role)?;
        command.args(["serve", "--role", role, "--exit-with-stdin"]);
        self.children.push(Child::start(&format!("{role}-{number}"), command, &self.folder)?);
        Ok(())
    }

    async fn until_ready(&mut self, browser: &Browser, url: &str) -> anyhow::Result<()> {
        let end = Instant::now() + START;
        loop {
            let got = browser.get(&format!("{url}/readyz"), "application/json").await;
            if got.as_ref().is_ok_and(|got| got.status.is_success()) {
                return Ok(());
            }
            self.must_run()?;
            if Instant::now() > end {
                bail!("not ready: {}", got.map_or_else(|error| error.to_string(), |got| got.body.to_string()));
            }
            sleep(LOOK).await;
        }
    }

    pub(super) fn password(&self, user: &str) -> &str {
        self.passwords.get(user).map_or("", Secret::expose)
    }

    /// Connects to the bus from this process.
    pub(super) async fn connect(&self, user: &str) -> anyhow::Result<Nats> {
        let settings = config::Nats {
            url: self.nats_url.clone(),
            user: user.to_owned(),
            password: Secret::new(self.password(user)),
            creds: PathBuf::new(),
            nkey: PathBuf::new(),
            ca: PathBuf::new(),
            client_cert: PathBuf::new(),
            client_key: PathBuf::new(),
            allow_plaintext: false,
            replicas: self.replicas,
            inbox_prefix: String::new(),
            max_bytes: config::MaxBytes::of_each(MAX_BYTES),
            worker_key: String::new(),
        };
        Nats::connect(&settings, "tokenbus demo", Patience::Once)
            .await
            .with_context(|| format!("cannot connect as {user}"))
    }

    /// Returns the processes in start order.
    pub(super) fn running(&self) -> &[Child] {
        &self.children
    }

    /// Fails if one of the processes has exited.
    pub(super) fn must_run(&mut self) -> anyhow::Result<()> {
        self.children.iter_mut().try_for_each(Child::must_run)
    }

    /// Returns the last lines of each process's log.
    pub(super) fn logs(&self) -> String {
        let tails = self.children.iter().map(|child| (&child.name, child.tail())).filter(|(_, tail)| !tail.is_empty());
        let shown = tails.map(|(name, tail)| format!("--- last lines of the log of {name}\n{tail}\n"));
        shown.collect::<Vec<_>>().concat()
    }

    /// Stops the processes in reverse start order.
    pub(super) async fn stop(&mut self) {
        while let Some(mut child) = self.children.pop() {
            child.stop().await;
        }
    }
}

/// Random value that starts with a letter: nats-server parses an unquoted `12e3` as a number.
fn random(prefix: &str) -> Secret {
    Secret::new(format!("{prefix}_{:032x}", u128::from_ne_bytes(system::random())))
}

fn parse_api_key(printed: &[u8]) -> Option<Secret> {
    #[derive(Deserialize)]
    struct Made {
        key: Secret,
    }
    serde_json::from_slice(printed).ok().map(|made: Made| made.key)
}
