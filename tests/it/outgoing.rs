//! Calls to providers, as the program makes them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::Method;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::ask::{ask, with_query};
use crate::fleet::Fleet;
use crate::provider::{Provider, Scripted};
use crate::world::{INTEGRATION, World};

#[tokio::test]
async fn c2_proxies_in_the_environment_are_ignored() {
    let trap = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let proxy = format!("http://{}", trap.local_addr().expect("an address"));
    let (caught, counter) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&caught);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while trap.accept().await.is_ok() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let seen = Arc::clone(&counter);
    let provider = Provider::start(move |number, _| {
        seen.fetch_add(1, Ordering::SeqCst);
        Scripted::tokens(number)
    })
    .await;
    let fleet = Fleet::start(&provider.url).await;
    let names = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let mut environment = names.map(|name| (name, proxy.as_str())).to_vec();
    environment.extend([("NO_PROXY", ""), ("no_proxy", "")]);
    let worker = fleet.worker_with(&environment);
    worker.ready().await;
    fleet.ready().await;
    let (status, body) = fleet.put(&fleet.admin_keys[0], &fleet.config()).await;
    assert_eq!(status, 200, "{body}");
    let (status, body) = fleet.arrive(&fleet.login("one").await, "code").await;
    assert_eq!((status.as_u16(), &body["access_token"]), (200, &"at-0".into()), "{body}");
    assert_eq!(
        (counter.load(Ordering::SeqCst), caught.load(Ordering::SeqCst)),
        (1, 0),
        "the provider itself was asked"
    );
}

#[tokio::test]
async fn d5_a_providers_retry_after_reaches_the_caller() {
    let busy = |after: &str| {
        let mut said = Scripted::json(429, &json!({ "error": "slow_down" }));
        said.headers.push(("retry-after", after.to_owned()));
        said
    };
    let provider = Provider::start(move |number, received| match received.form().get("code").map(String::as_str) {
        Some("busy") => busy("77"),
        Some("dated") => busy("Thu, 21 Oct 2100 07:28:00 GMT"),
        Some(_) => Scripted::tokens(number),
        None => busy("55"),
    })
    .await;
    let world = World::with(provider).await;
    for (code, after) in [("busy", "77"), ("dated", "86400")] {
        let login = world.login("one").await;
        let query = [("code", code), ("state", login.state.as_str())];
        let callback = with_query("hub/integrations/oauth-callback", &query);
        let answer = ask(world.tokenbus.request(Method::GET, &callback)).await;
        assert_eq!((answer.status, answer.header("retry-after")), (502, after), "{}", answer.text);
    }
    assert_eq!(world.connect("two").await.0, 200);
    let path = format!("hub/integrations/{INTEGRATION}/oauth-refresh-token/two");
    // The first reader's result answers the second one.
    for _ in 0..2 {
        // A recently issued token is returned for a refresh request.
        let refused = async {
            loop {
                let answer =
                    ask(world.tokenbus.request(Method::GET, &path).header("x-api-key", &world.tokenbus.key)).await;
                if answer.status != 200 {
                    return answer;
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        let answer = tokio::time::timeout(std::time::Duration::from_mins(1), refused).await.expect("it gets old");
        let after: u64 = answer.header("retry-after").parse().unwrap_or_default();
        assert!(answer.status == 502 && (1..=55).contains(&after), "{} {after}: {}", answer.status, answer.text);
    }
}
