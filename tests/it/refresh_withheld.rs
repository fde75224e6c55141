//! A worker that is stopped while it opens the connection for a refresh without a body: the refresh token is in the query.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use reqwest::StatusCode;
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::Acceptor;

use crate::bus::Bus;
use crate::fleet::{Fleet, eventually};
use crate::provider::Provider;
use crate::support::child::signal;

const NAME: &str = "workspace1";

/// TLS in front of a provider. Stops the process `victim`, if there is one, in the middle of its handshake.
struct Front {
    url: String,
    /// Certificate of the authority.
    ca: String,
    victim: Arc<AtomicU32>,
    _tasks: JoinSet<()>,
}

impl Front {
    async fn of(provider: &Provider) -> Self {
        let (ca, config) = authority();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let victim = Arc::new(AtomicU32::new(0));
        let (stops, target) = (Arc::clone(&victim), provider.url.strip_prefix("http://").unwrap().to_owned());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(pass(stream, Arc::clone(&config), Arc::clone(&stops), target.clone()));
            }
        });
        Self { url, ca, victim, _tasks: tasks }
    }
}

/// Passes one connection on to the provider. The client's first message is there when the client is stopped, so it finds
/// the handshake's end when it wakes.
async fn pass(stream: TcpStream, config: Arc<ServerConfig>, victim: Arc<AtomicU32>, target: String) {
    let Ok(handshake) = LazyConfigAcceptor::new(Acceptor::default(), stream).await else { return };
    let pid = victim.swap(0, Ordering::SeqCst);
    if pid > 0 {
        signal(pid, "STOP");
    }
    let Ok(mut client) = handshake.into_stream(config).await else { return };
    let mut provider = TcpStream::connect(target).await.expect("the provider is there");
    let _ = copy_bidirectional(&mut client, &mut provider).await;
}

/// Returns a new authority's certificate, and the settings of a server that it has certified.
fn authority() -> (String, Arc<ServerConfig>) {
    let ca_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &Issuer::new(params, ca_key)).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key);
    (ca, Arc::new(config.unwrap()))
}

#[tokio::test]
async fn h3_a_worker_that_was_stopped_while_it_connected_sends_no_refresh_token_in_a_query() {
    let provider = Provider::generous().await;
    let front = Front::of(&provider).await;
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, &front.ca).unwrap();
    let mut fleet = Fleet::start(&front.url).await;
    fleet.settings.insert("TOKENBUS_OAUTH__CA".to_owned(), ca.to_str().unwrap().to_owned());
    let (mut fleet, mut first) = fleet.configure().await;
    let mut config = fleet.config();
    config["refresh_method"] = json!("GET");
    assert_eq!(fleet.put(&fleet.admin_keys[0], &config).await.0, StatusCode::OK);
    let state = fleet.login(NAME).await;
    assert_eq!(fleet.arrive(&state, "code").await.0, StatusCode::OK);
    fleet.idle().await;
    // The next worker has no open connection to the provider.
    first.kill().await;
    fleet.settings.insert("TOKENBUS_REFRESH__MIN_INTERVAL".to_owned(), "1m".to_owned());
    let bus = Bus::of(&fleet.nats).await;
    bus.age(NAME, fleet.setting("TOKENBUS_SECRETS__KEYS_FILE").as_ref()).await;

    let stopped = fleet.worker().await;
    front.victim.store(stopped.pid(), Ordering::SeqCst);
    bus.due(NAME).await;
    stopped.stopped().await;
    let second = fleet.worker().await;
    let log = || format!("{}\n{}", stopped.log(), second.log());
    eventually("the other worker finds the refresh interrupted", async || {
        let stored = fleet.stored(NAME).await.0;
        stored.is_some_and(|stored| stored["refresh_failure"]["reason"] == "refresh_interrupted")
    })
    .await;
    stopped.signal("CONT");
    let ends = ["another worker has the command", "done", "put back"];
    eventually("the worker that woke has finished", async || ends.iter().any(|end| stopped.log().contains(end))).await;
    let sent: Vec<_> = provider.received().into_iter().filter(|received| received.method == "GET").collect();
    assert!(sent.is_empty(), "{sent:?}\n{}", log());
}
