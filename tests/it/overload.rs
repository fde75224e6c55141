//! More callbacks than the program carries out: the surplus is refused before it is queued, and works later.

use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt as _, stream};
use reqwest::Method;
use tokio::sync::watch;
use url::Url;

use crate::ask::{Answer, ask, new_account};
use crate::bus::Bus;
use crate::provider::{Provider, Scripted};
use crate::support::wait::eventually;
use crate::world::{INTEGRATION, World, state_of};

/// Callbacks of one account at one integration in memory, with two commands at once: the flood begins with one more.
const BURST: usize = 16;
/// Callbacks of which one comes soon enough after a refusal.
const FURTHER: usize = 32;
/// Logins that begin at once.
const PARALLEL: usize = 4;

struct Held {
    world: World,
    bus: Bus,
    /// Lets the provider answer.
    opens: watch::Sender<bool>,
}

impl Held {
    async fn start() -> Self {
        let (opens, opened) = watch::channel(false);
        let provider = Provider::start(move |number, _| Scripted::tokens(number).once(&opened)).await;
        let settings = [
            ("WORKER__CONCURRENCY", "2"),
            ("HTTP__DEADLINE", "2m"),
            ("HTTP__ADDRESS_RATE", "0"),
            ("HTTP__CREDENTIAL_RATE", "0"),
        ];
        let world = World::with_settings(provider, &settings).await;
        let mut config = world.config();
        config["timeout"] = 60.into();
        world.tokenbus.configure(&config).await;
        let bus = Bus::of(&world.tokenbus.nats).await;
        Self { world, bus, opens }
    }

    /// Begins a login with that key. Returns its callback.
    async fn begin(&self, key: &str, name: &str) -> Url {
        let path = format!("hub/integrations/{INTEGRATION}/oauth-login/{name}");
        let answer = ask(self.world.tokenbus.request(Method::GET, &path).header("x-api-key", key)).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        self.world.callback(&[("code", "code"), ("state", &state_of(&answer.json()["oauth_url"]))])
    }

    async fn begin_many(&self, many: usize) -> Vec<Url> {
        let names = (0..many).map(|number| format!("c{number}"));
        let begun = names.map(async |name| self.begin(&self.world.tokenbus.key, &name).await);
        stream::iter(begun).buffer_unordered(PARALLEL).collect().await
    }

    async fn arrive(&self, callback: &Url) -> Answer {
        let path = format!("{}?{}", callback.path().trim_start_matches('/'), callback.query().expect("a query"));
        ask(self.world.tokenbus.request(Method::GET, &path).header("accept", "application/json")).await
    }

    /// The number of commands that were ever queued, and of those that are.
    async fn queued(&self) -> (u64, u64) {
        let state = self.bus.info("OAUTH_COMMANDS").await.state;
        (state.last_sequence, state.messages)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_callbacks_is_refused_before_it_is_queued_and_each_works_later() {
    let held = Held::start().await;
    let mut callbacks = held.begin_many(BURST + 1 + FURTHER).await;
    let further = callbacks.split_off(BURST + 1);
    let arrive = async |callback: &Url| (held.arrive(callback).await, callback.clone());
    let mut waiting: FuturesUnordered<_> = callbacks.iter().map(arrive).collect();
    let (first, refused) = waiting.next().await.expect("they are answered");
    first.assert_error(503, "too many logins and deletions of this integration or account");
    let (mut again, mut is_flood) = (vec![refused], false);
    for callback in further {
        let (before, _) = held.queued().await;
        let answer = held.arrive(&callback).await;
        again.push(callback);
        if answer.status == 429 {
            answer.assert_error(429, "too many logins of this account at this integration");
            assert!(answer.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 0));
            assert_eq!(held.queued().await.0, before, "it was queued");
            is_flood = true;
            break;
        }
        assert_eq!(answer.status, 503, "{}", answer.text);
    }
    assert!(is_flood, "all were queued before they were refused");
    // Another account is not refused.
    let other = held.world.tokenbus.api_key(&new_account(), "member").await;
    let callback = held.begin(&other, "one").await;
    let (_, before) = held.queued().await;
    let others = async {
        let is_queued = async || held.queued().await.1 > before;
        let opens = async {
            eventually("the other account's callback is queued", is_queued).await;
            held.opens.send_replace(true);
        };
        tokio::join!(held.arrive(&callback), opens).0
    };
    let (other, burst) = tokio::join!(others, waiting.collect::<Vec<_>>());
    assert_eq!(other.status, 200, "{}", other.text);
    for (answer, _) in burst {
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    for callback in again {
        let answer = held.arrive(&callback).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
}
