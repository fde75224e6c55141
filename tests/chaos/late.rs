//! A delivery that reaches its worker only after another worker has had the command.

use std::time::Duration;

use reqwest::Method;
use tokio::time::{Instant, sleep_until};

use crate::answers::Kind;
use crate::book::Book;
use crate::configs::CHANGING;
use crate::driver::{Driver, Question};
use crate::faults::{Fault, Step};
use crate::house::House;
use crate::links::Cut;
use crate::support::wait::eventually;

/// Longer than a pull and the wait for its end, and shorter than the time after which a silent peer counts as dead.
const SILENCE: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread")]
async fn h3_a_delivery_that_arrives_after_the_end_of_its_pull_is_left_to_the_next_one() {
    let (book, provider) = Book::open().await;
    let mut house = House::start(book).await;
    let driver = Driver::new(house.gateway_urls.clone());
    eventually("the gateways are ready", async || driver.is_ready().await).await;
    let key = house.nats.api_key(&house.accounts[0], "admin").await;
    let config = house.config(&provider.url);
    let put = async |name: &str| {
        let mut body = config.clone();
        body["integration_id"] = CHANGING.into();
        body["name"] = name.into();
        let path = format!("{CHANGING}/oauth-config");
        let put = Question { kind: Kind::ConfigPut, method: Method::PUT, path: &path, key: &key, body: Some(&body) };
        assert_eq!(driver.ask(&put).await.status, Some(200), "{name}");
    };
    let step = |fault, is_begin| Step { at: Duration::ZERO, fault, is_begin };

    house.apply(&step(Fault::KillWorker(1), true)).await;
    put("before").await;
    house.idle().await;
    // The first worker has asked for commands, and gets this one late.
    house.apply(&step(Fault::Cut(0, Cut::Silent), true)).await;
    let end = Instant::now() + SILENCE;
    let start = step(Fault::KillWorker(1), false);
    tokio::join!(put("late"), house.apply(&start));
    put("newer").await;
    sleep_until(end).await;
    house.apply(&step(Fault::KillWorker(1), true)).await;
    house.apply(&step(Fault::Cut(0, Cut::Silent), false)).await;
    put("newest").await;
    put("after it").await;
    house.idle().await;
    let log = house.log_of(0);
    assert!(!log.contains("record not confirmed"), "the first worker works on the late delivery: {log}");
}
