//! A provider to which no connection can be opened for some time.

use std::cell::OnceCell;
use std::io;
use std::net::SocketAddr;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpSocket;

use crate::bus::Bus;
use crate::provider::{Provider, Scripted};
use crate::support::wait::eventually;
use crate::world::World;

/// The log's line after a failed try.
const TRIES_AGAIN: &str = "no connection to the provider; trying again";

/// Takes a port that refuses connections until it listens.
fn closed_port() -> (TcpSocket, SocketAddr) {
    let socket = bind(([127, 0, 0, 1], 0).into()).expect("a free port");
    let address = socket.local_addr().expect("it is bound");
    (socket, address)
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Ends a provider and keeps its port.
async fn close(provider: Provider, address: SocketAddr) -> TcpSocket {
    drop(provider);
    let closed = OnceCell::new();
    // Its task ends a moment later.
    let is_free = async || bind(address).is_ok_and(|socket| closed.set(socket).is_ok());
    eventually("the port is free", is_free).await;
    closed.into_inner().expect("it is bound")
}

fn open(socket: TcpSocket) -> Provider {
    Provider::on(socket.listen(16).expect("it is bound"), |number, _| Scripted::tokens(number))
}

async fn world_with(token_host: SocketAddr, timeout: u64) -> World {
    let world = World::with(Provider::generous().await).await;
    let mut config = world.config();
    (config["token_url"], config["timeout"]) = (json!(format!("http://{token_host}/token")), json!(timeout));
    world.tokenbus.configure(&config).await;
    world
}

/// Opens the port after another try has failed.
async fn open_later(world: &World, socket: TcpSocket, failed_before: usize) -> Provider {
    let failed = async || world.tokenbus.log().matches(TRIES_AGAIN).count() > failed_before;
    eventually("a try fails", failed).await;
    open(socket)
}

#[tokio::test]
async fn o8_a_closed_port_costs_neither_a_login_nor_a_refresh() {
    let (socket, address) = closed_port();
    let world = world_with(address, 30).await;
    let ((status, body), provider) = tokio::join!(world.connect("one"), open_later(&world, socket, 0));
    assert_eq!(status.as_u16(), 200, "{body}");
    assert_eq!(provider.received().len(), 1, "the code is sent once");

    let socket = close(provider, address).await;
    let failed = world.tokenbus.log().matches(TRIES_AGAIN).count();
    // A record younger than `refresh.min_interval` answers without a request.
    let refresh = async || {
        let (status, body) = world.tokenbus.call(Method::GET, "odd/oauth-refresh-token/one").await;
        assert_eq!(status.as_u16(), 200, "{body}");
        world.tokenbus.log().matches(TRIES_AGAIN).count() > failed
    };
    let (provider, ()) = tokio::join!(open_later(&world, socket, failed), eventually("a refresh was sent", refresh));
    assert_eq!(provider.received().len(), 1, "the refresh token is sent once");
}

#[tokio::test]
async fn o8_a_login_that_reaches_no_provider_says_why() {
    let (_socket, address) = closed_port();
    let world = world_with(address, 1).await;
    let (status, body) = world.connect("one").await;
    assert_eq!(status.as_u16(), 502, "{body}");
    let failed = Bus::of(&world.tokenbus.nats).await.events("exchange_failed").await;
    let [event] = failed.as_slice() else { panic!("one event: {failed:?}") };
    assert_eq!((&event["reason"], event.get("provider_status")), (&json!("provider_unreachable"), None));
    let detail = event["provider_detail"].as_str().expect("a detail");
    assert!(detail.contains("port of the provider is closed"), "{detail}");
    assert!(world.tokenbus.log().contains(detail), "the log says it, too");
    assert!(!event.to_string().contains(&address.to_string()), "no address: {event}");
    let said = Value::to_string(&body);
    assert!(said.contains("port of the provider is closed"), "{said}");
}
