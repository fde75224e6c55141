//! `demo`: starts everything on this machine and runs one login from end to end, with a built-in authorization server.
//! With `--stay` everything stays up to look around.

mod client;
mod endpoints;
mod grants;
mod process;
mod provider;
mod screen;
mod servers;
mod stack;
mod steps;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::bail;
use tokio::signal::unix::{Signal, SignalKind, signal};

use client::{Gateway, LOGIN};
use endpoints::KnownClient;
use provider::{Provider, Setting};
use screen::{Screen, say};
use stack::{ACCOUNT, Stack};
use steps::{CALLBACK, Walk};

use crate::secret::Secret;
use crate::system;

/// Lifetime of the demo provider's access tokens in seconds: an hour, or with `--stay` two minutes, so that a refresh can
/// be watched.
const LIFETIME: u32 = 3600;
const LIFETIME_TO_WATCH: u32 = 120;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Path of the nats-server to run (`nats/bring-nats` prints one).
    #[arg(long, value_name = "FILE")]
    pub nats_server: PathBuf,
    /// Configuration file of nats-server.
    #[arg(long, value_name = "FILE", default_value = "nats/local.conf")]
    pub nats_config: PathBuf,
    /// Start three nats-servers with `node1.conf` to `node3.conf` of this folder, three workers and two gateways.
    #[arg(long, value_name = "DIR", conflicts_with = "nats_config")]
    pub cluster: Option<PathBuf>,
    /// Keep everything running until Ctrl-C, and print commands to look around.
    #[arg(long)]
    pub stay: bool,
}

/// Starts everything, runs the login, and stops everything, also after an error.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let screen = Screen::new();
    let mut stack = Stack::new()?;
    let ended = tokio::select! {
        ended = walk(&options, &mut stack, &screen) => ended.map(|()| true),
        () = signals.any() => Ok(false),
    };
    if ended.is_err() {
        eprint!("\n{}", stack.logs());
    }
    stack.stop().await;
    match ended {
        Ok(is_whole) if is_whole || options.stay => Ok(()),
        Ok(_) => bail!("interrupted; all processes are stopped"),
        Err(error) => Err(error.context("demo")),
    }
}

async fn walk(options: &Options, stack: &mut Stack, screen: &Screen) -> anyhow::Result<()> {
    screen.title("Starting");
    let start = Instant::now();
    let gateway = stack.start(options).await?;
    let client = KnownClient {
        id: "tokenbus-demo".to_owned(),
        secret: Secret::new(system::random_id()),
        redirect_uri: format!("{}{CALLBACK}", gateway.url),
    };
    let expires_in = if options.stay { LIFETIME_TO_WATCH } else { LIFETIME };
    let provider = Provider::start(Setting { client: client.clone(), expires_in, gateway: gateway.clone() }).await?;
    for child in stack.running() {
        screen.field(&child.name, format!("process {:<7} {}", child.pid(), child.address).trim_end());
    }
    screen.field("demo provider", format!("in this one     {}", provider.url));
    screen.check(true, &format!("ready after {} ms", start.elapsed().as_millis()))?;

    let steps = Walk { stack, gateway: &gateway, provider: &provider, client: (&client.id, &client.secret), screen };
    let took = steps.all().await?;
    screen.summary(&format!(
        "Every step held. The callback took {} ms, from the browser's request to the stored connection.",
        took.as_millis()
    ));
    if options.stay {
        say_how_to_look_around(screen, stack, &gateway, &provider);
        stay(stack).await?;
    }
    Ok(())
}

fn say_how_to_look_around(screen: &Screen, stack: &Stack, gateway: &Gateway, provider: &Provider) {
    let Gateway { url, api_key, browser: _ } = gateway;
    let (key, nats_url) = (api_key.expose(), &stack.nats_url);
    let nats = |user: &str| {
        format!("nats -s {nats_url} --user {user} --password {} --inbox-prefix _INBOX_{user}", stack.password(user))
    };
    let (demo, operator) = (nats("demo"), nats("operator"));
    let curl = format!("curl -s -H 'X-Api-Key: {key}'");
    let connections = "/hub/integrations/oauth-connections";
    let (token, refresh) =
        ("/hub/integrations/demo/oauth-token/workspace1", "/hub/integrations/demo/oauth-refresh-token/workspace1");
    screen.title("Everything runs until Ctrl-C. Log in with a browser:");
    say(format!("\n  {}/start", provider.url));
    screen.title("Ask the gateway:");
    for path in [connections, token, refresh, LOGIN] {
        say(format!("  {curl} {url}{path}"));
    }
    screen.title(
        "Look at the bus (`nats/bring-nats-cli` prints the path of a nats CLI); the token is refreshed each minute:",
    );
    say(format!("  {demo} sub --headers-only 'ms.integration.oauth.{ACCOUNT}.*.*'"));
    say(format!("  {demo} sub 'ms.integration.oauth.{ACCOUNT}.*.*'"));
    say(format!("  {demo} sub 'ms.oauth.{ACCOUNT}.event.*.*.*'"));
    say(format!("  {operator} kv ls oauth_connections"));
    say(format!("  {operator} kv get --raw oauth_connections {ACCOUNT}.demo.workspace1"));
    say(format!("  {operator} stream ls"));
    say(format!("  {operator} micro stats tokenbus"));
    screen.title("Manage the account's connections, as its NATS user:");
    let program = std::env::current_exe().map_or_else(|_| "tokenbus".to_owned(), |path| path.display().to_string());
    let settings = |user: &str| {
        let password = stack.password(user);
        format!("TOKENBUS_NATS__URL={nats_url} TOKENBUS_NATS__USER={user} TOKENBUS_NATS__PASSWORD={password}")
    };
    let tenant = format!("{} {program} connections --account {ACCOUNT}", settings("demo"));
    say(format!("  {tenant} watch"));
    screen.title("Connect a real account, in a second terminal, at any provider of `tokenbus providers list`:");
    let admin = format!("{} TOKENBUS_CLI__API_KEY={key} TOKENBUS_HTTP__PUBLIC_URL={url}", settings("admin"));
    say(format!("  {program} providers show <provider>"));
    say(format!("  {admin} {program} config new <provider>"));
    say(format!("  {tenant} login <provider> workspace1"));
    say(format!("  {tenant} get <provider> workspace1 --show-token"));
}

/// Waits until one of the processes exits by itself.
async fn stay(stack: &mut Stack) -> anyhow::Result<()> {
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        stack.must_run()?;
    }
}

/// Waits for SIGINT or SIGTERM.
struct Signals([Signal; 3]);

impl Signals {
    fn new() -> std::io::Result<Self> {
        let [interrupt, terminate, hangup] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    async fn any(&mut self) {
        let Self([interrupt, terminate, hangup]) = self;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
