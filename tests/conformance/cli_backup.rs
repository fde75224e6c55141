//! A store that is copied with the `nats` CLI.

use crate::parts::nats_cli::NatsCli;
use crate::parts::world::{CONNECTION, INTEGRATION, World};
use crate::support::nats::Nats;
use reqwest::{Method, StatusCode};

const SETUP: &str = r#"nats --user setup --password "$NATS_SETUP_PASSWORD" --inbox-prefix _INBOX_setup"#;

/// The commands in docs/operations.md.
#[tokio::test]
async fn a_store_is_backed_up_and_restored_with_the_nats_cli() {
    let mut world = World::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path().join("copy");
    let Some(cli) = NatsCli::on(&world.tokenbus.nats) else { return };
    let made = world.connect(CONNECTION).await;
    let folder = folder.display();
    cli.prints(&format!("{SETUP} backup account --consumers --force {folder}")).await;
    let new = Nats::start().await;
    let cli = NatsCli::on(&new).expect("it was there before");
    cli.prints(&format!("{SETUP} backup restore account {folder}")).await;

    world.tokenbus.kill().await;
    world.tokenbus.serve_on(new).await;
    let (status, read) = world.tokenbus.call(Method::GET, &format!("{INTEGRATION}/oauth-token/{CONNECTION}")).await;
    assert_eq!((status, &read["access_token"]), (StatusCode::OK, &made["access_token"]), "{read}");
}
