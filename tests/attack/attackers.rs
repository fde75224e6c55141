//! A hostile tenant, a hostile second gateway, a hostile operator, and logins at a provider that hangs.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use async_nats::Client;
use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, interval};

use crate::fleet::{Fleet, INTEGRATION, state_of};
use crate::pace::every;
use crate::provider::{Provider, Scripted};
use crate::support::tokenbus::ACCOUNT;
use crate::wire::Wire;

/// The integration whose provider hangs.
const HUNG: &str = "hung";
/// A header block whose value holds a lone carriage return: async-nats 0.51 panics at it.
const LONE_CR: &str = "NATS/1.0\r\nx: a\rb\r\n\r\n";
/// Time after which an attacker hangs up.
const PATIENCE: Duration = Duration::from_secs(1);
/// Connections of the hostile tenant at the provider that hangs.
const CONNECTIONS: usize = 20;

/// Time of a read, one after another, on the machine for which the attackers' paces are written: two cores, debug builds.
const READ: Duration = Duration::from_millis(5);
/// Reads that are measured.
const READS: u32 = 200;

pub(crate) struct Attackers<'a> {
    fleet: &'a Fleet,
    operator: Client,
    http: reqwest::Client,
    hung: Provider,
    /// Factor of all paces.
    slowness: f64,
    /// The provider answers while this is true.
    answers: watch::Sender<bool>,
    /// By attack: messages or requests sent, and those of them that were refused or not answered in time.
    counts: Mutex<BTreeMap<&'static str, [usize; 2]>>,
}

/// A message that an attacker sends again and again.
struct Flood {
    name: &'static str,
    /// The attacker's NATS user.
    user: &'static str,
    message: String,
    /// Sent together at each tick of the pace.
    times: usize,
    pace: Duration,
}

impl<'a> Attackers<'a> {
    pub(crate) async fn new(fleet: &'a Fleet) -> Self {
        let slowness = slowness(fleet).await;
        let (answers, until) = watch::channel(true);
        let hung = Provider::start(move |number, _| Scripted::tokens(number).once(&until)).await;
        let mut config = fleet.config();
        config["integration_id"] = HUNG.into();
        config["token_url"] = format!("{}/token", hung.url).into();
        config["revocation_url"] = format!("{}/revoke", hung.url).into();
        let path = format!("hub/integrations/{HUNG}/oauth-config");
        let (status, body) = fleet.request(Method::PUT, &path, &fleet.admin_keys[0], &config).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let http = reqwest::Client::builder().no_proxy().local_address("127.0.0.3".parse().ok()).timeout(PATIENCE);
        let http = http.build().expect("an HTTP client");
        let operator = fleet.nats.connect("operator").await;
        Self { fleet, operator, http, hung, slowness, answers, counts: Mutex::default() }
    }

    /// All attackers at once until the end, and a little longer, until they hang up.
    pub(crate) async fn attack(&self, end: Instant) {
        self.answers.send_replace(false);
        let ms = |pace| Duration::from_millis(pace).mul_f64(self.slowness);
        let key = &self.fleet.admin_keys[0];
        tokio::join!(
            join_all(floods().into_iter().map(|flood| self.flood(flood, end))),
            every(ms(100), end, async || {
                self.http("tenant: login spam", Method::GET, &format!("{INTEGRATION}/oauth-login/spam"), key).await;
            }),
            every(ms(250), end, async || {
                self.http("tenant: lists", Method::GET, "oauth-connections?limit=1000", key).await;
            }),
            every(ms(80), end, async || self.hung_login().await),
            every(ms(250), end, async || {
                let path = format!("{HUNG}/oauth-connections/h{}", rand::random_range(0..CONNECTIONS));
                self.http("hung provider: deletions", Method::DELETE, &path, key).await;
            }),
            every(ms(100), end, async || self.junk().await),
        );
        self.answers.send_replace(true);
    }

    pub(crate) fn print(&self) {
        println!("\n{:<36}{:>8}{:>9}", "attack", "sent", "refused");
        for (name, [sent, refused]) in &*self.counts.lock().expect("no panic with the lock") {
            println!("{name:<36}{sent:>8}{refused:>9}");
        }
        println!("{:<36}{:>8}", "hung provider: requests it received", self.hung.received().len());
    }

    fn count(&self, name: &'static str, sent: usize, refused: usize) {
        let mut counts = self.counts.lock().expect("no panic with the lock");
        let count = counts.entry(name).or_default();
        *count = [count[0] + sent, count[1] + refused];
    }

    async fn flood(&self, flood: Flood, end: Instant) {
        let mut wire = Wire::connect(&self.fleet.nats, flood.user).await;
        let mut pace = interval(flood.pace.mul_f64(self.slowness));
        let messages = flood.message.repeat(flood.times);
        while Instant::now() < end {
            pace.tick().await;
            let output = wire.send_text(&messages).await;
            self.count(flood.name, flood.times, output.iter().filter(|line| line.starts_with("-ERR")).count());
        }
    }

    /// A callback that the provider does not answer.
    async fn hung_login(&self) {
        let name = "hung provider: logins";
        let (path, key) =
            (format!("{HUNG}/oauth-login/h{}", rand::random_range(0..CONNECTIONS)), &self.fleet.admin_keys[0]);
        if let Some(login) = self.http(name, Method::GET, &path, key).await {
            let path = format!("oauth-callback?code=code&state={}", state_of(&login));
            self.http("hung provider: callbacks", Method::GET, &path, key).await;
        }
    }

    async fn http(&self, name: &'static str, method: Method, path: &str, key: &str) -> Option<serde_json::Value> {
        let url = self.fleet.endpoint(&format!("hub/integrations/{path}"));
        let request = self.http.request(method, url).header("x-api-key", key).header("accept", "application/json");
        let answer = request.send().await.ok().filter(|answer| answer.status().is_success());
        let body = match answer {
            Some(answer) => answer.json().await.ok(),
            None => None,
        };
        self.count(name, 1, usize::from(body.is_none()));
        body
    }

    /// Asks the server for answers to the subjects of the tenant's entries and records. The operator's account has none of
    /// them, so no answer arrives there.
    async fn junk(&self) {
        let path = format!("{}.{INTEGRATION}.c-{}", self.fleet.other_account, rand::random_range(0..CONNECTIONS));
        let targets = [
            format!("$KV.oauth_connections.{path}"),
            "$KV.oauth_connections.odd".to_owned(),
            format!("oauth.record.{path}"),
            format!("ms.integration.oauth.{path}"),
        ];
        let target = targets[rand::random_range(0..targets.len())].clone();
        let sent = self.operator.publish_with_reply("$JS.API.STREAM.INFO.OAUTH_EVENTS", target, "".into()).await;
        self.count("operator: junk by reply", 1, usize::from(sent.is_err()));
    }
}

/// How many times slower this machine reads. The attackers slow down by as much, or they would use up a slow machine, and the
/// run would measure the machine in place of the borders.
async fn slowness(fleet: &Fleet) -> f64 {
    let path = format!("hub/integrations/{INTEGRATION}/oauth-token/none");
    let read = async || {
        let (status, _) = fleet.request(Method::GET, &path, &fleet.admin_keys[0], &json!({})).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
    };
    // The first ones open connections and fill caches.
    for _ in 0..READS / 4 {
        read().await;
    }
    let began = Instant::now();
    for _ in 0..READS {
        read().await;
    }
    let read = began.elapsed() / READS;
    let slowness = read.div_duration_f64(READ).max(1.0);
    println!("a read takes {:.1} ms: the attackers are {slowness:.1} times slower", read.as_secs_f64() * 1e3);
    slowness
}

fn floods() -> [Flood; 3] {
    let commands = format!("ms.integration.oauth.{ACCOUNT}.{INTEGRATION}.bad.exchange");
    let flood = |name, user, subject: &str, times| {
        let pace = Duration::from_millis(50);
        Flood { name, user, message: malformed(subject), times, pace }
    };
    [
        flood("tenant: malformed calls", "demo", &format!("ms.oauth.{ACCOUNT}.token"), 50),
        flood("gateway: malformed calls", "edge", "oauth.edge.token", 1),
        flood("gateway: malformed commands", "edge", &commands, 1),
    ]
}

/// A request with malformed headers.
fn malformed(subject: &str) -> String {
    let (head, all) = (LONE_CR.len(), LONE_CR.len() + "{}".len());
    format!("HPUB {subject} _INBOX.x {head} {all}\r\n{LONE_CR}{{}}\r\n")
}
