//! Authorities that change while the client runs.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::super::super::Authorities;
use super::*;

/// Sends requests until one succeeds.
async fn until_trusted(client: &Client, url: &str) {
    let poll = async {
        while client.send_if(request(url), LIMIT, || true).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), poll).await.expect("the authority is trusted");
}

#[tokio::test]
async fn o10_authorities_are_read_again_on_a_change_and_on_sighup() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let [(first, first_tls), (second, second_tls)] = [(); 2].map(|()| authority(&["localhost"], 2100));
    std::fs::write(&file, &first).unwrap();
    let extra_ca_pem = Authorities::load(&file).await.unwrap().pem();
    let client = Client::new(&Settings { extra_ca_pem, ..settings(true) }).unwrap();
    let ((port, _first), (other, _second)) = (serve_tls(first_tls).await, serve_tls(second_tls).await);
    let [first_url, second_url] = [port, other].map(|port| format!("https://localhost:{port}/echo"));

    let (reload, stop) = (watch::Sender::new(0), CancellationToken::new());
    let mut kept = JoinSet::new();
    kept.spawn(Authorities::keep_current(client.clone(), file.clone(), reload.subscribe(), stop));
    client.send_if(request(&first_url), LIMIT, || true).await.unwrap();
    refused(client.send_if(request(&second_url), LIMIT, || true).await);
    // On a change.
    std::fs::write(&file, format!("{first}{second}")).unwrap();
    until_trusted(&client, &second_url).await;
    // A broken file changes nothing.
    std::fs::write(&file, "broken").unwrap();
    reload.send_modify(|count| *count += 1);
    std::fs::write(&file, &second).unwrap();
    reload.send_modify(|count| *count += 1);
    until_trusted(&client, &second_url).await;
}
