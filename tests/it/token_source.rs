//! `tokenbus::client::TokenSource` on the tenant's own NATS user, with and without a bus.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokenbus::client::{CallError, TokenSource, TokenSourceError};
use tokenbus::connection::OauthConnection;
use tokenbus::subject::ConnectionKey;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::provider::Provider;
use crate::support::nats::Nats;
use crate::support::tokenbus::ACCOUNT;
use crate::support::wait::PATIENCE;
use crate::world::{INTEGRATION, World};

fn key() -> ConnectionKey {
    ConnectionKey::parse(ACCOUNT, INTEGRATION, "one").unwrap()
}

fn token(connection: &OauthConnection) -> &str {
    connection.access_token.as_ref().map_or("", |token| token.expose())
}

/// Waits until the source has that token.
async fn has(source: &mut TokenSource, expected: &str) -> OauthConnection {
    let wait = async {
        loop {
            if let Some(current) = source.current().filter(|current| token(current) == expected) {
                return current;
            }
            source.changed().await.expect("the source lives");
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("the source never has {expected}"))
}

/// Asks until the bus is up and the token old enough to be refreshed. Returns the new token.
async fn refresh(world: &World, source: &TokenSource) -> Value {
    let before = source.current().map(|current| current.sequence);
    let wait = async {
        loop {
            let (_, after) = world.tokenbus.call(Method::GET, &format!("{INTEGRATION}/oauth-refresh-token/one")).await;
            if after["sequence"].as_u64() > before {
                return after;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("the connection is refreshed")
}

#[tokio::test]
async fn a_source_waits_for_the_login_receives_every_token_and_ends_when_dropped() {
    let world = World::with(Provider::generous().await).await;
    let mut source = TokenSource::open(world.tokenbus.nats.connect("demo").await, key()).await.unwrap();
    assert!(source.current().is_none(), "no login yet");
    let (first, connected) = tokio::join!(timeout(PATIENCE, source.token()), world.connect("one"));
    let first = first.expect("the login's token arrives").unwrap();
    assert_eq!((token(&first), Some(first.sequence)), ("at-0", connected.1["sequence"].as_u64()));
    assert_eq!(Some(first.modified), connected.1["modified"].as_u64());
    assert!(first.refresh_token.is_none());

    let refreshed = refresh(&world, &source).await;
    let current = has(&mut source, "at-1").await;
    assert_eq!(Some(current.sequence), refreshed["sequence"].as_u64());

    let (status, _) = world.tokenbus.call(Method::DELETE, &format!("{INTEGRATION}/oauth-connections/one")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(has(&mut source, "").await.status.as_str(), "revoked");

    let mut watch = source.watch();
    watch.mark_unchanged();
    drop(source);
    let closed = timeout(PATIENCE, watch.changed()).await.expect("what the source did ends");
    assert!(closed.is_err());
}

#[tokio::test]
async fn a_source_finds_an_existing_token() {
    let world = World::with(Provider::generous().await).await;
    assert_eq!(world.connect("one").await.0, StatusCode::OK);
    let source = TokenSource::open(world.tokenbus.nats.connect("demo").await, key()).await.unwrap();
    assert_eq!(source.current().as_ref().map(token), Some("at-0"));
}

#[tokio::test]
async fn a_source_reports_missing_workers() {
    let nats = Nats::start().await;
    let error = TokenSource::open(nats.connect("demo").await, key()).await.expect_err("no responder");
    assert!(matches!(error, TokenSourceError::Call(CallError::NoWorker)), "{error}");
}

#[tokio::test]
async fn a_source_survives_a_bus_restart() {
    let mut world = World::with(Provider::generous().await).await;
    assert_eq!(world.connect("one").await.0, StatusCode::OK);
    let mut source = TokenSource::open(world.tokenbus.nats.connect("demo").await, key()).await.unwrap();
    world.tokenbus.nats.kill().await;
    world.tokenbus.nats.restart_once_killed().await;
    world.tokenbus.ready().await;
    assert_eq!(source.current().as_ref().map(token), Some("at-0"), "kept while the bus was away");
    // After a restart of the server refreshes wait, logins do not.
    assert_eq!(world.connect("one").await.0, StatusCode::OK);
    has(&mut source, "at-1").await;
}

/// A proxy to the server that can be cut.
struct Proxy {
    url: String,
    server: String,
    listener: Arc<TcpListener>,
    carried: Mutex<JoinSet<()>>,
}

impl Proxy {
    async fn to(nats: &Nats) -> Self {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let url = format!("nats://{}", listener.local_addr().unwrap());
        let server = nats.url.trim_start_matches("nats://").to_owned();
        let cable = Self { url, server, listener, carried: Mutex::default() };
        cable.mend();
        cable
    }

    fn mend(&self) {
        let (listener, server) = (Arc::clone(&self.listener), self.server.clone());
        self.carried.lock().unwrap().spawn(async move {
            let mut pairs = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let server = server.clone();
                pairs.spawn(async move {
                    let mut server = TcpStream::connect(&server).await.unwrap();
                    // When either end closes the connection, both end.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
    }

    fn cut(&self) {
        *self.carried.lock().unwrap() = JoinSet::new();
    }
}

#[tokio::test]
async fn a_missed_push_is_read_after_the_next_connect() {
    let world = World::with(Provider::generous().await).await;
    assert_eq!(world.connect("one").await.0, StatusCode::OK);
    let (nats, cable) = (&world.tokenbus.nats, Proxy::to(&world.tokenbus.nats).await);
    let options =
        async_nats::ConnectOptions::with_user_and_password("demo".to_owned(), nats.password("demo").to_owned());
    let client = options.connect(&cable.url).await.unwrap();
    let mut source = TokenSource::open(client.clone(), key()).await.unwrap();

    cable.cut();
    timeout(PATIENCE, async {
        while client.connection_state() == async_nats::connection::State::Connected {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the client notices");
    refresh(&world, &source).await;
    assert_eq!(source.current().as_ref().map(token), Some("at-0"));
    cable.mend();
    has(&mut source, "at-1").await;
}

#[tokio::test]
async fn the_example_prints_each_new_state() {
    let world = World::with(Provider::generous().await).await;
    assert_eq!(world.connect("one").await.0, StatusCode::OK);
    let client = world.tokenbus.nats.connect("demo").await;
    let (said, mut lines) = tokio::sync::mpsc::unbounded_channel();
    let follow = crate::token_source_example::follow(client, key(), |line| said.send(line).unwrap());
    let check = async {
        let mut line = async || timeout(PATIENCE, lines.recv()).await.expect("a line").unwrap();
        let first = line().await;
        assert!(first.ends_with(": active, a token of 4 characters"), "{first}");
        let other = TokenSource::open(world.tokenbus.nats.connect("demo").await, key()).await.unwrap();
        let refreshed = refresh(&world, &other).await;
        assert_eq!(line().await, format!("sequence {}: active, a token of 4 characters", refreshed["sequence"]));
    };
    tokio::select! {
        ended = follow => panic!("the example ended: {ended:?}"),
        () = check => {}
    }
}
