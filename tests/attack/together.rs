//! The run: windows with and without attackers, then the checks.

use std::time::Duration;

use tokenbus::internals::config::env;
use tokio::time::Instant;

use crate::attackers::Attackers;
use crate::check::check;
use crate::fleet::Fleet;
use crate::ledger::Load;
use crate::provider::{Provider, Scripted};
use crate::slow::Slow;
use crate::support::nats::Nats;
use crate::tenant::Tenant;

/// Windows of each load.
const WINDOWS: u32 = 10;
/// Largest ratio of p99; doubled where `CI` is set, because other jobs share the machine.
const MOST: f64 = 3.0;
/// Time for which the attackers continue after a window's end, because the tenant still waits for its last answers.
const OVERLAP: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread")]
async fn attackers_at_all_borders_take_nothing_from_a_tenant() {
    let seconds = env("ATTACK_SECONDS").map_or(120, |text| text.parse().expect("ATTACK_SECONDS is a number"));
    let length = Duration::from_secs(seconds) / WINDOWS;
    let most = if env("CI").is_some() { 2.0 * MOST } else { MOST };
    let provider = Provider::start(|number, _| Scripted::tokens(number)).await;

    // The gateway and the workers connect through the proxy, the tests' own clients don't.
    let mut nats = Nats::start().await;
    let slow = Slow::before(&nats.url).await;
    let direct = std::mem::replace(&mut nats.url, slow.url.clone());
    let mut fleet = Fleet::start_on(nats, &provider.url).await;
    fleet.nats.url = direct;
    let (fleet, _first) = fleet.configure().await;
    let _second = fleet.worker().await;
    fleet.ready().await;

    let (tenant, attackers) = (Tenant::new(&fleet).await, Attackers::new(&fleet).await);
    for number in 1..=WINDOWS {
        println!("window {number} of {WINDOWS}");
        tenant.window(Load::Quiet, length).await;
        slow.hold(true);
        tenant.window(Load::Slow, length).await;
        tokio::join!(tenant.window(Load::Attack, length), attackers.attack(Instant::now() + length + OVERLAP));
        slow.hold(false);
        // Until the attackers' commands are done, no window is quiet.
        fleet.idle().await;
    }

    attackers.print();
    println!("{:<36}{:>8}", "server: acks held back", slow.held());
    let connections = tenant.ledger().connections.clone();
    let differences = check(&fleet, &connections, &provider).await;
    let mut ledger = tenant.ledger();
    ledger.print();
    let ratios = ledger.compare();
    println!(
        "p99 under attack: reads {:.2} times the quiet one, writes {:.2} times that of a slow server",
        ratios.reads, ratios.writes
    );
    ledger.faults.extend(differences);
    assert!(ledger.faults.is_empty(), "{}", ledger.faults.join("\n"));
    assert!(ratios.reads <= most && ratios.writes <= most, "p99 is more than {most} times the calm one");
}
