//! These tests use the shipped server configuration.

use crate::support::nats::Nats;

#[tokio::test]
async fn the_shipped_server_config_starts_and_lets_its_users_in() {
    let nats = Nats::start().await;
    assert!(nats.store().exists());
    for user in ["worker", "setup", "operator", "admin", "edge", "demo"] {
        nats.connect(user).await.flush().await.expect("the connection is open");
    }
}
