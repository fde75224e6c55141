//! Commands that an attacker's edge has recorded and publishes again.

use tokenbus::Secret;
use tokenbus::internals::command::{Credential, Work};
use tokenbus::internals::subject::Verb;
use tokenbus::internals::system;

use super::{Sealed, World, config_subject};
use crate::support::tokenbus::ACCOUNT;

#[tokio::test]
async fn h6_a_recorded_command_is_refused_by_every_worker() {
    let mut world = World::start().await;
    let put = config_subject(ACCOUNT, Verb::Put);
    let recorded = world.seal(&put, world.config_put(&world.key(0)));
    assert_eq!(world.answer(&put, &recorded).await.status, 200);
    let stored = world.fleet.stored_config().await;
    // The server knows the message id.
    world.send(&world.client, &put.subject(), &recorded).await;
    // A worker opens only what is stored under the sealed message id, and soon.
    let renamed = Sealed { message_id: system::random_id(), ..recorded };
    world.send(&world.client, &put.subject(), &renamed).await;
    let old = system::now() - jiff::SignedDuration::from_secs(65);
    let old = world.seal_at(old, &system::random_id(), &put, world.config_put(&world.key(0)));
    world.send(&world.client, &put.subject(), &old).await;
    let reasons = world.given_up(2).await;
    assert!(reasons.iter().all(|reason| reason.contains("it is a copy")), "{reasons:?}");
    assert_eq!(world.fleet.stored_config().await, stored);
}

#[tokio::test]
async fn h6_a_recorded_command_is_refused_after_a_restart_of_the_server() {
    let mut world = World::start().await;
    let [put, delete] = [Verb::Put, Verb::Delete].map(|verb| config_subject(ACCOUNT, verb));
    let recorded_put = world.seal(&put, world.config_put(&world.key(0)));
    assert_eq!(world.answer(&put, &recorded_put).await.status, 200);
    let credential = Credential::new(Secret::new(world.key(0)));
    let recorded_delete = world.seal(&delete, Work::Delete { credential });
    assert_eq!(world.answer(&delete, &recorded_delete).await.status, 200);
    let (status, body) = world.fleet.put(&world.fleet.admin_keys[0], &world.fleet.config()).await;
    assert_eq!(status, 200, "{body}");
    let stored = world.fleet.stored_config().await;
    world.fleet.idle().await;

    // The server's duplicate window knows only messages that its streams still hold.
    world.fleet.nats.kill().await;
    world.fleet.nats.restart_once_killed().await;
    world.fleet.ready().await;
    world.send(&world.client, &put.subject(), &recorded_put).await;
    world.send(&world.client, &delete.subject(), &recorded_delete).await;
    let reasons = world.given_up(2).await;
    assert!(reasons.iter().all(|reason| reason.contains("it is a copy")), "{reasons:?}");
    assert_eq!(world.fleet.stored_config().await, stored);
}
