//! The checks report what was lost on purpose. Otherwise a run of the attack would prove nothing.

use std::time::Duration;

use crate::check::check;
use crate::fleet::{Fleet, INTEGRATION};
use crate::ledger::Load;
use crate::provider::{Provider, Scripted};
use crate::tenant::Tenant;

/// Long enough for some logins and refreshes.
const WORK: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn the_checks_report_what_was_lost_on_purpose() {
    let provider = Provider::start(|number, _| Scripted::tokens(number)).await;
    let (fleet, _worker) = Fleet::configured(&provider.url).await;
    fleet.ready().await;
    let tenant = Tenant::new(&fleet).await;
    tenant.window(Load::Quiet, WORK).await;
    let mut connections = tenant.ledger().connections.clone();
    assert_eq!(check(&fleet, &connections, &provider).await, Vec::<String>::new());

    let (name, known) = connections.iter_mut().find(|(_, known)| !known.is_deleted).expect("a living connection");
    let name = name.clone();
    known.token += 1_000_000;
    let faults = check(&fleet, &connections, &provider).await;
    assert_eq!(faults, [format!("{name}: the provider issued the answered token")]);

    let records = fleet.jetstream("setup").await.get_stream("OAUTH").await.expect("the stream");
    let subject = format!("ms.integration.oauth.{}.{INTEGRATION}.{name}", fleet.other_account);
    records.purge().filter(subject).await.expect("the record is removed");
    let faults = check(&fleet, &connections, &provider).await;
    assert!(faults.contains(&format!("{name}: the record has the newest token")), "{faults:?}");
}
