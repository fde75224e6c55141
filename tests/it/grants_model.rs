//! The rules alone and a real worker do the same to a connection.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::json;
use tokenbus::internals::connection::{Model, ModelConfig, Reply, Summary};

use crate::bus::Bus;
use crate::provider::{Provider, Scripted};
use crate::support::wait::eventually;
use crate::world::{INTEGRATION, World};

/// Random sequences, each of a login and some steps.
const SEQUENCES: u64 = 6;
const STEPS: u64 = 10;

/// A generator of numbers (xorshift64), so that a failure can be repeated.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn reply(&mut self) -> Reply {
        match self.below(8) {
            0 => Reply::Tokens(Some(5_400)),
            1 => Reply::Tokens(None),
            2..=4 => Reply::InvalidGrant,
            5 => Reply::InvalidClient,
            6 => Reply::Down,
            _ => Reply::Unclear,
        }
    }
}

fn scripted(reply: Reply) -> Scripted {
    match reply {
        Reply::Tokens(lifetime) => {
            Scripted::json(200, &json!({ "access_token": "at", "refresh_token": "rt", "expires_in": lifetime }))
        }
        Reply::InvalidGrant => Scripted::json(400, &json!({ "error": "invalid_grant" })),
        Reply::InvalidClient => Scripted::json(400, &json!({ "error": "invalid_client" })),
        Reply::Down => Scripted::new(503, "text/html", "down"),
        Reply::Unclear => Scripted::json(404, &json!({})),
    }
}

/// A real worker with one connection, beside the model of it.
struct Both {
    world: World,
    bus: Bus,
    other: Provider,
    reply: Arc<Mutex<Reply>>,
    model: Model,
    has_config: bool,
}

impl Both {
    async fn new() -> Self {
        let reply = Arc::new(Mutex::new(Reply::Tokens(Some(5_400))));
        let provider = Provider::start({
            let reply = Arc::clone(&reply);
            move |_, _| scripted(*reply.lock().unwrap())
        })
        .await;
        let world = World::with_settings(provider, &[("REFRESH__MIN_INTERVAL", "1ms")]).await;
        let bus = Bus::of(&world.tokenbus.nats).await;
        let other = Provider::start(|number, _| Scripted::tokens(number)).await;
        Self { world, bus, other, reply, model: Model::connected(None, Duration::from_millis(1)), has_config: true }
    }

    fn set(&self, reply: Reply) {
        *self.reply.lock().unwrap() = reply;
    }

    /// Waits until the worker has taken so many commands since `before`, and lets no schedule fire by itself.
    async fn done(&self, before: u64, commands: u64) {
        let is_done = async || {
            self.bus.last_sequence("OAUTH_COMMANDS").await >= before + commands
                && self.bus.info("OAUTH_COMMANDS").await.state.messages == 0
        };
        eventually("the commands are done", is_done).await;
        self.bus.purge("OAUTH_SCHEDULE", ">").await;
    }

    async fn login(&mut self, lifetime: Option<i64>) {
        self.set(Reply::Tokens(lifetime));
        self.world.tokenbus.configure(&self.world.config()).await;
        self.has_config = true;
        let before = self.bus.last_sequence("OAUTH_COMMANDS").await;
        assert_eq!(self.world.connect("w").await.0, StatusCode::OK);
        self.done(before, 1).await;
        self.model = Model::connected(lifetime, Duration::from_millis(1));
    }

    /// Another login of the connection, or of a new one after a deletion.
    async fn login_again(&mut self, after_deletion: bool, lifetime: Option<i64>, reply: Reply) {
        self.configure(ModelConfig::Fits, reply).await;
        self.set(Reply::Tokens(lifetime));
        let before = self.bus.last_sequence("OAUTH_COMMANDS").await;
        if after_deletion {
            self.delete().await;
        }
        assert_eq!(self.world.connect("w").await.0, StatusCode::OK);
        self.done(before, if after_deletion { 2 } else { 1 }).await;
        let deleted = after_deletion.then_some("revoked");
        let events = self.model.events.iter().copied().chain(deleted).chain(["login_started", "connected"]).collect();
        let requests = self.model.requests + 1;
        self.model = Model::connected(lifetime, Duration::from_millis(1));
        (self.model.events, self.model.requests) = (events, requests);
    }

    async fn delete(&self) {
        let path = format!("{INTEGRATION}/oauth-connections/w");
        assert_eq!(self.world.tokenbus.call(Method::DELETE, &path).await.0, StatusCode::OK);
        Bus::of(&self.world.tokenbus.nats).await.idle().await;
    }

    async fn delete_config(&mut self) {
        let before = self.bus.last_sequence("OAUTH_COMMANDS").await;
        let path = format!("hub/integrations/{INTEGRATION}/oauth-config");
        let request = self.world.tokenbus.request(Method::DELETE, &path);
        let answer = request.header("x-api-key", &self.world.tokenbus.admin_key).send().await;
        assert_eq!(answer.expect("the gateway answers").status(), StatusCode::OK);
        self.done(before, 1).await;
    }

    async fn refresh(&mut self, by_caller: bool, reply: Reply) {
        self.set(reply);
        let before = self.bus.last_sequence("OAUTH_COMMANDS").await;
        if by_caller {
            let path = format!("{INTEGRATION}/oauth-refresh-token/w");
            self.world.tokenbus.call(Method::GET, &path).await;
            self.done(before, 0).await;
        } else {
            self.bus.due("w").await;
            self.done(before, 1).await;
        }
        self.model.refresh(by_caller, reply);
    }

    async fn configure(&mut self, new: ModelConfig, reply: Reply) {
        self.set(reply);
        let mut config = self.world.config();
        let before = self.bus.last_sequence("OAUTH_COMMANDS").await;
        let had_config = std::mem::replace(&mut self.has_config, new != ModelConfig::Missing);
        match new {
            ModelConfig::Missing => {
                if had_config {
                    self.delete_config().await;
                }
                self.model.configure(new, reply);
                return;
            }
            ModelConfig::Fits => {}
            ModelConfig::Other => config["token_url"] = json!(format!("{}/token", self.other.url)),
        }
        self.world.tokenbus.configure(&config).await;
        let resumes = self.model.configure(new, reply);
        self.done(before, if resumes { 2 } else { 1 }).await;
    }

    async fn advance(&mut self, seconds: i64) {
        self.bus.advance("w", &self.world.tokenbus.keys_file(), seconds).await;
        self.model.advance(seconds);
    }

    async fn step(&mut self, numbers: &mut Numbers) -> String {
        // Whole hours, far from every limit but the end of a day, which both pass.
        let (hours, reply) = ([1, 6, 25][usize::try_from(numbers.below(3)).unwrap()], numbers.reply());
        self.advance(hours * 3_600).await;
        let kind = numbers.below(12);
        let lifetime = [None, Some(5_400)][usize::try_from(numbers.below(2)).unwrap()];
        match kind {
            0 => self.configure(ModelConfig::Other, reply).await,
            1 | 2 => self.configure(ModelConfig::Fits, reply).await,
            3 => self.configure(ModelConfig::Missing, reply).await,
            4 => self.login_again(false, lifetime, reply).await,
            5 => self.login_again(true, lifetime, reply).await,
            6 | 7 => self.refresh(true, reply).await,
            _ => self.refresh(false, reply).await,
        }
        format!("{hours} h, {kind}, {reply:?}; ")
    }
}

#[tokio::test]
async fn a_real_worker_does_what_the_rules_alone_do() {
    let mut both = Both::new().await;
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for sequence in 0..SEQUENCES {
        let lifetime = [None, Some(5_400), Some(150_000)][usize::try_from(sequence % 3).unwrap()];
        both.login(lifetime).await;
        let events = both.bus.messages("OAUTH_EVENTS").await.len();
        let requests = both.world.provider.received().len();
        let mut steps = format!("{sequence}: {lifetime:?}; ");
        for _ in 0..STEPS {
            steps += &both.step(&mut numbers).await;
            let stored = both.bus.stored("w", &both.world.tokenbus.keys_file()).await;
            assert_eq!(Summary::of(&stored), Summary::of(&both.model.stored), "{steps}");
            assert_eq!(both.world.provider.received().len() - requests, both.model.requests, "{steps}");
        }
        let seen = both.bus.messages("OAUTH_EVENTS").await;
        let seen = seen.iter().skip(events).map(|event| event.subject.rsplit('.').next().unwrap().to_owned());
        let seen: Vec<String> =
            seen.filter(|name| !["config_put", "config_deleted", "read"].contains(&name.as_str())).collect();
        assert_eq!(seen, both.model.events, "{steps}");
        assert_eq!(both.other.received().len(), 0, "nothing goes to another origin: {steps}");
        if sequence % 2 == 1 {
            both.delete().await;
        }
    }
}

/// For a dead grant, from the first refusal: when the rules and a real worker reach the end, beside the allowed time.
#[tokio::test]
async fn a_dead_grant_ends_within_the_second_look_or_the_access_token() {
    let mut both = Both::new().await;
    println!("valid for | needs_reauthorization after | allowed | refusals");
    for left in [10, 100, 130, 1_000, 3_600, 100_000] {
        both.login(Some(left)).await;
        both.refresh(false, Reply::InvalidGrant).await;
        let (first, requests) = (both.model.now, both.model.requests);
        if left > 125 {
            assert_eq!(both.model.stored.connection.status.as_str(), "active", "{left}");
            let look = both.model.next_due().expect("a second look");
            both.advance(look.as_second() - first.as_second()).await;
            both.refresh(false, Reply::InvalidGrant).await;
        }
        let stored = both.bus.stored("w", &both.world.tokenbus.keys_file()).await;
        assert_eq!(stored.connection.status.as_str(), "needs_reauthorization", "{left}");
        assert_eq!(Summary::of(&stored), Summary::of(&both.model.stored), "{left}");
        let (took, allowed) = (both.model.now.as_second() - first.as_second(), (left / 10).clamp(30, 600).max(left));
        println!("{left:>7} s | {took:>4} s | {allowed:>6} s | {}", both.model.requests - requests + 1);
        assert!(took <= allowed, "{left}");
    }
}
