//! A provider that hangs, with hundreds of callbacks and deletions at it: logins, refreshes and deletions at another provider
//! are answered as before.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use reqwest::{Method, StatusCode};
use tokio::sync::watch;
use url::Url;

use crate::ask::{Answer, ask, send};
use crate::bus::Bus;
use crate::latency::{NOISE, bound, median};
use crate::provider::{Provider, Scripted};
use crate::support::wait::eventually;
use crate::world::{World, parameter};

/// The integration at the provider that hangs.
const HUNG: &str = "hung";
const CALLBACKS: usize = 600;
const DELETIONS: usize = 200;
/// Pairs of a quiet and a loaded window.
const WINDOWS: usize = 6;
/// Logins, refreshes and deletions in one window.
const ROUNDS: usize = 12;
/// Preparing calls at once.
const PARALLEL: usize = 32;
/// Largest ratio of loaded and quiet p99.
const MOST: f64 = 2.0;
/// The gateway's deadline: long enough for all requests to be queued, and to wait during a loaded window, on a slow machine too.
const DEADLINE: &str = "16s";
/// Longer than half of the deadline, after which a gateway tries again.
const AFTER_LATER_TRIES: Duration = Duration::from_secs(9);
/// Time from one of these requests to the next. More of them at once than the worker's queue of calls holds would be refused
/// for that reason.
const PACE: Duration = Duration::from_millis(2);
/// Time after which a request that was refused for that reason comes again.
const CALLS_RETRY: Duration = Duration::from_millis(100);

/// Callbacks and connections at a provider that answers or hangs.
struct Hung {
    world: World,
    bus: Bus,
    answers: watch::Sender<bool>,
    _provider: Provider,
    callbacks: Vec<Url>,
    connections: Vec<String>,
    /// Logins so far: the next connection's name.
    logins: usize,
}

impl Hung {
    async fn start(more: &[(&str, &str)]) -> Self {
        let (answers, answering) = watch::channel(true);
        let provider = Provider::start(move |number, _| Scripted::tokens(number).once(&answering)).await;
        let rates = ["ADDRESS_RATE", "ADDRESS_BURST", "CREDENTIAL_RATE", "CREDENTIAL_BURST"];
        let rates = rates.map(|rate| (format!("HTTP__{rate}"), "100000"));
        let rates = rates.iter().map(|(name, value)| (name.as_str(), *value));
        let settings: Vec<_> = rates
            .chain([("REFRESH__MIN_INTERVAL", "1ms"), ("OAUTH__MAX_PENDING_LOGINS", "100000")])
            .chain(more.iter().copied())
            .collect();
        let world = World::with_settings(Provider::generous().await, &settings).await;
        let mut config = world.config();
        config["integration_id"] = HUNG.into();
        config["token_url"] = format!("{}/token", provider.url).into();
        config["revocation_url"] = format!("{}/revoke", provider.url).into();
        world.tokenbus.configure(&config).await;
        let bus = Bus::of(&world.tokenbus.nats).await;
        let (callbacks, connections) = (Vec::new(), Vec::new());
        Self { world, bus, answers, _provider: provider, callbacks, connections, logins: 0 }
    }

    /// Begins logins, and returns their connections and the URLs of their callbacks.
    async fn begin(&mut self, many: usize) -> Vec<(String, Url)> {
        let names = (self.logins..).take(many).map(|number| format!("c{number}"));
        self.logins += many;
        let world = &self.world;
        let login = async |name: String| {
            let url = world.tokenbus.login(HUNG, &name).await;
            (name, world.callback(&[("code", "code"), ("state", &parameter(&url, "state"))]))
        };
        stream::iter(names.map(login)).buffer_unordered(PARALLEL).collect().await
    }

    /// Has that many pending callbacks and connections, while the provider answers.
    async fn prepare(&mut self, callbacks: usize, connections: usize) {
        let begun = self.begin(callbacks - self.callbacks.len()).await;
        self.callbacks.extend(begun.into_iter().map(|(_, url)| url));
        let begun = self.begin(connections - self.connections.len()).await;
        let arrived = stream::iter(&begun).map(|(_, url)| self.arrive(url)).buffer_unordered(PARALLEL);
        arrived.for_each(async |answer| assert_eq!(answer.status, 200, "{}", answer.text)).await;
        self.connections.extend(begun.into_iter().map(|(name, _)| name));
    }

    async fn arrive(&self, callback: &Url) -> Answer {
        let path = format!("{}?{}", callback.path().trim_start_matches('/'), callback.query().expect("a query"));
        let request = || self.world.tokenbus.request(Method::GET, &path).header("accept", "application/json");
        patiently(async || ask(request().header("x-api-key", &self.world.tokenbus.key)).await).await
    }

    async fn delete(&self, connection: &str) -> Answer {
        let path = format!("{HUNG}/oauth-connections/{connection}");
        patiently(async || send(&self.world.tokenbus, Method::DELETE, &self.world.tokenbus.key, &path).await).await
    }

    async fn queued(&self) -> u64 {
        self.bus.info("OAUTH_COMMANDS").await.state.messages
    }

    /// Sends all callbacks and deletions to the provider while it hangs, and measures while they wait. Forgets those that
    /// found a share, and returns the latencies with the number of the others, which were refused.
    async fn load(&mut self, measure: impl AsyncFnOnce(&World) -> Vec<Duration>) -> (Vec<Duration>, usize) {
        let all = self.callbacks.len() + self.connections.len();
        let count = |part: usize| u64::try_from(part).expect("a small number");
        self.answers.send_replace(false);
        let measure = async {
            // Their arrival takes the CPU, and is not what is measured.
            eventually("all are on the queue", async || self.queued().await >= count(all)).await;
            let loaded = measure(&self.world).await;
            assert!(self.queued().await >= count(all / 2), "they were refused within the window");
            eventually("the waiting ones are refused", async || self.queued().await <= count(all / 10)).await;
            self.answers.send_replace(true);
            loaded
        };
        let callbacks = join_all(self.callbacks.iter().enumerate().map(async |(number, url)| {
            tokio::time::sleep(PACE * u32::try_from(number).expect("a small number")).await;
            is_refused(&self.arrive(url).await)
        }));
        let deletions = join_all(self.connections.iter().enumerate().map(async |(number, name)| {
            tokio::time::sleep(PACE * u32::try_from(number).expect("a small number")).await;
            is_refused(&self.delete(name).await)
        }));
        let (loaded, callbacks, deletions) = tokio::join!(measure, callbacks, deletions);
        eventually("the provider's own calls end", async || self.queued().await == 0).await;
        let (mut callbacks, mut deletions) = (callbacks.into_iter(), deletions.into_iter());
        self.callbacks.retain(|_| callbacks.next().expect("each has an answer"));
        self.connections.retain(|_| deletions.next().expect("each has an answer"));
        (loaded, self.callbacks.len() + self.connections.len())
    }
}

/// Repeats a request until the worker has room for its calls.
async fn patiently(request: impl AsyncFn() -> Answer) -> Answer {
    loop {
        let answer = request().await;
        if answer.status != 503 || !answer.error().contains("too many calls") {
            return answer;
        }
        tokio::time::sleep(CALLS_RETRY).await;
    }
}

/// Checks an answer that was given while the provider hung.
#[track_caller]
fn is_refused(answer: &Answer) -> bool {
    assert!([200, 503, 504].contains(&answer.status), "{}: {}", answer.status, answer.text);
    let is_refused = answer.status == 503;
    if is_refused {
        answer.assert_error(503, "too many logins and deletions of this integration");
        assert!(answer.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 0));
    }
    is_refused
}

async fn timed(call: impl Future<Output = StatusCode>) -> Duration {
    let began = Instant::now();
    assert_eq!(call.await, StatusCode::OK);
    began.elapsed()
}

/// Connects, refreshes and deletes a connection at the provider that answers, several times. Returns the latencies, sorted.
async fn window(world: &World) -> Vec<Duration> {
    let call = async |method, path: &str| world.tokenbus.call(method, path).await.0;
    let mut latencies = Vec::new();
    for _ in 0..ROUNDS {
        latencies.push(timed(async { world.connect("calm").await.0 }).await);
        latencies.push(timed(call(Method::GET, "odd/oauth-refresh-token/calm")).await);
        latencies.push(timed(call(Method::DELETE, "odd/oauth-connections/calm")).await);
    }
    latencies.sort_unstable();
    latencies
}

#[tokio::test(flavor = "multi_thread")]
async fn h2_a_provider_that_hangs_delays_only_its_own_logins_and_deletions() {
    let mut hung = Hung::start(&[("HTTP__DEADLINE", DEADLINE)]).await;
    let mut ratios = Vec::new();
    for _ in 0..WINDOWS {
        hung.prepare(CALLBACKS, DELETIONS).await;
        let quiet = window(&hung.world).await;
        let (loaded, refused) = hung.load(window).await;
        let [quiet, loaded] = [quiet, loaded].map(|sorted| sorted[sorted.len() * 99 / 100]);
        println!("p99 {quiet:?}, loaded {loaded:?}; {refused} refused");
        ratios.push(loaded.max(NOISE).as_secs_f64() / quiet.max(NOISE).as_secs_f64());
    }
    let median = median(ratios);
    assert!(median <= bound(MOST), "p99 is {median} times the quiet one");
}

/// The gateway sends such a deletion again after half of its time. The later try must not be carried out after the refusal.
#[tokio::test]
async fn h2_a_deletion_that_was_sent_twice_is_refused_as_a_whole() {
    let mut hung = Hung::start(&[("HTTP__DEADLINE", "8s"), ("WORKER__CONCURRENCY", "8")]).await;
    hung.prepare(0, 2).await;
    let deletions = hung.connections.clone();
    hung.answers.send_replace(false);
    let first = hung.delete(&deletions[0]);
    let second = async {
        eventually("the first one runs", async || hung.queued().await == 1).await;
        let began = Instant::now();
        let answer = hung.delete(&deletions[1]).await;
        (answer, began.elapsed())
    };
    let (_, (answer, passed)) = tokio::join!(first, second);
    assert!(is_refused(&answer), "{}: {}", answer.status, answer.text);
    assert!(passed < Duration::from_secs(8), "{passed:?}");
    hung.answers.send_replace(true);
    eventually("the first one ends", async || hung.queued().await == 0).await;
    let answer = hung.delete(&deletions[1]).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

/// Gateways try waiting deletions again at half of their deadline. These tries leave room for other calls of the account.
#[tokio::test(flavor = "multi_thread")]
async fn h2_later_tries_of_waiting_deletions_take_no_room_from_other_calls() {
    let mut hung = Hung::start(&[("HTTP__DEADLINE", DEADLINE)]).await;
    hung.prepare(0, DELETIONS).await;
    hung.answers.send_replace(false);
    let all = u64::try_from(DELETIONS).expect("a small number");
    let measure = async {
        eventually("all are on the queue", async || hung.queued().await >= all / 2).await;
        tokio::time::sleep(AFTER_LATER_TRIES).await;
        assert!(hung.queued().await >= all / 2, "they were answered before the later tries");
        drop(window(&hung.world).await);
        hung.answers.send_replace(true);
    };
    let deletions = join_all(hung.connections.iter().map(async |name| is_refused(&hung.delete(name).await)));
    tokio::join!(measure, deletions);
}

/// Nothing is done for a request that was refused.
#[tokio::test]
async fn h2_a_refused_callback_or_deletion_works_when_it_comes_again() {
    let mut hung = Hung::start(&[("HTTP__DEADLINE", "3s"), ("WORKER__CONCURRENCY", "8")]).await;
    hung.prepare(5, 5).await;
    let (_, refused) = hung.load(async |_| Vec::new()).await;
    // An account's share at one integration is one of eight.
    assert_eq!(refused, 9);
    for callback in &hung.callbacks {
        let answer = hung.arrive(callback).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    for connection in &hung.connections {
        let answer = hung.delete(connection).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
}
