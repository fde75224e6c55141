//! Workers that die at random failpoints while many logins run. In every case no code is sent twice, and every
//! connection that was reported to a caller is stored.
//!
//! `CHAOS_ROUNDS` sets the number of rounds (default 1). `CHAOS_SEED` repeats the rounds of an earlier run.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::StatusCode;
use serde_json::Value;
use tokenbus::internals::config::env;
use tokio::time::timeout;

use crate::fleet::{Fleet, INTEGRATION, Worker};
use crate::provider::{Provider, Scripted};
use crate::worker_crash::{STEPS_BEFORE_RECORD, STEPS_WITH_RECORD};

const LOGINS: usize = 30;
/// Two logins at once for each connection.
const CONNECTIONS: usize = LOGINS / 2;
/// Workers that die in a round.
const DEATHS: usize = 4;
/// Doomed workers that run at once, in addition to the one that survives.
const WAVE: usize = 2;
/// Time for a wave to die: the commands of a dead worker are redelivered after five seconds.
const DYING: Duration = Duration::from_secs(6);

struct Login {
    connection: String,
    code: String,
    status: StatusCode,
    body: Value,
}

#[tokio::test]
async fn b3_workers_killed_at_random_send_no_code_twice_and_lose_no_connection() {
    let number = |name: &str| env(name).and_then(|text| text.parse::<u64>().ok());
    let seed = number("CHAOS_SEED").unwrap_or_else(rand::random);
    println!("CHAOS_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..number("CHAOS_ROUNDS").unwrap_or(1) {
        round(&mut random).await;
    }
}

async fn round(random: &mut StdRng) {
    let provider = Provider::start(|number, _| Scripted::tokens(number).after(Duration::from_millis(50))).await;
    let (fleet, _reliable) = Fleet::configured(&provider.url).await;
    let failpoints: Vec<&str> = STEPS_BEFORE_RECORD.into_iter().chain(STEPS_WITH_RECORD).collect();
    let dooms: Vec<&str> = (0..DEATHS).map(|_| failpoints[random.random_range(0..failpoints.len())]).collect();
    println!("failpoints: {dooms:?}");
    let states = join_all((0..LOGINS).map(async |number| fleet.login(&connection(number)).await)).await;
    let mut doomed = doomed_workers(&fleet, &dooms[..WAVE]).await;
    let logins = join_all(states.into_iter().enumerate().map(|(number, state)| arrive(&fleet, number, state)));
    let deaths = async {
        for wave in dooms[WAVE..].chunks(WAVE) {
            // A worker that receives no more commands never reaches its failpoint.
            join_all(doomed.iter_mut().map(|worker| timeout(DYING, worker.ended()))).await;
            doomed = doomed_workers(&fleet, wave).await;
        }
    };
    let (logins, ()) = tokio::join!(logins, deaths);
    fleet.idle().await;
    check(&fleet, &provider, &logins).await;
}

fn connection(number: usize) -> String {
    format!("c{}", number % CONNECTIONS)
}

async fn doomed_workers(fleet: &Fleet, failpoints: &[&str]) -> Vec<Worker> {
    let workers: Vec<Worker> = failpoints.iter().map(|name| fleet.worker_with(&[("FAIL_KILL_AT", name)])).collect();
    join_all(workers.iter().map(Worker::ready)).await;
    workers
}

async fn arrive(fleet: &Fleet, number: usize, state: String) -> Login {
    let code = format!("code-{number}");
    let (mut status, mut body) = fleet.arrive(&state, &code).await;
    // The call that looks up the login may reach a worker that dies: the user tries again.
    for _ in 0..2 {
        if status != StatusCode::SERVICE_UNAVAILABLE {
            break;
        }
        (status, body) = fleet.arrive(&state, &code).await;
    }
    Login { connection: connection(number), code, status, body }
}

async fn check(fleet: &Fleet, provider: &Provider, logins: &[Login]) {
    let mut requests: HashMap<String, usize> = HashMap::new();
    for received in provider.received() {
        *requests.entry(received.form()["code"].clone()).or_default() += 1;
    }
    let mut ended: HashMap<u16, usize> = HashMap::new();
    for Login { connection, code, status, body } in logins {
        *ended.entry(status.as_u16()).or_default() += 1;
        let sent = requests.get(code).copied().unwrap_or(0);
        assert!(sent <= 1, "{code} was sent {sent} times");
        match status.as_u16() {
            200 => {
                let (stored, _) = fleet.stored(connection).await;
                let stored = stored.and_then(|stored| stored["sequence"].as_u64());
                assert!(stored >= body["sequence"].as_u64(), "{connection}: {stored:?}, {body}");
                assert_eq!(sent, 1, "{code}");
            }
            502 => assert_eq!(body["reason"], "exchange_interrupted", "{code}: {body}"),
            504 => {}
            _ => panic!("{code}: {status} {body}"),
        }
    }
    println!("answers by status: {ended:?}");
    assert!(ended.contains_key(&200), "nothing went through");
    for number in 0..CONNECTIONS {
        let (stored, _) = fleet.stored(&connection(number)).await;
        let (newest, _) = fleet.record(&Fleet::path(&connection(number))).await;
        assert_eq!(stored.and_then(|stored| stored["sequence"].as_u64()), newest, "{INTEGRATION}/c{number}");
    }
}
