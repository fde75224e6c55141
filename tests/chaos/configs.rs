//! Changes of a config that no login uses, one after another.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::answers::Kind;
use crate::driver::{Driver, Question};
use crate::pace::every;

/// The integration whose config changes.
pub(crate) const CHANGING: &str = "changing";
/// Time from one change to the next, if that has its answer.
const PACE: std::time::Duration = std::time::Duration::from_millis(1_500);

/// A change of the config: the name that it has afterwards, or `None` after a deletion.
type Change = Option<String>;

/// What the config may be.
#[derive(Default)]
pub(crate) struct Configs {
    /// The last confirmed change, and the unanswered ones since.
    pub(crate) possible: Vec<Change>,
    /// Confirmed changes, by the name of their event.
    pub(crate) confirmed: [(&'static str, usize); 2],
}

/// Puts and deletes the config until the end.
pub(crate) async fn change_configs(driver: &Driver, key: &str, config: &Value, end: Instant) -> Configs {
    let state = tokio::sync::Mutex::new(Configs {
        possible: vec![None],
        confirmed: [("config_put", 0), ("config_deleted", 0)],
    });
    let number = std::sync::atomic::AtomicUsize::new(0);
    every(PACE, end, async || {
        // One change at a time, so that their order is known.
        let Ok(mut configs) = state.try_lock() else { return };
        let number = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let is_put = number % 4 != 3;
        let name = format!("v{number}");
        let mut body = config.clone();
        body["integration_id"] = CHANGING.into();
        body["name"] = json!(name);
        let path = format!("{CHANGING}/oauth-config");
        let (kind, method) =
            if is_put { (Kind::ConfigPut, Method::PUT) } else { (Kind::ConfigDeletion, Method::DELETE) };
        let answer = driver.ask(&Question { kind, method, path: &path, key, body: is_put.then_some(&body) }).await;
        let change = is_put.then_some(name);
        match answer.status {
            Some(200) => {
                configs.possible = vec![change];
                configs.confirmed[usize::from(!is_put)].1 += 1;
            }
            // There was none.
            Some(404) => configs.possible.retain(Option::is_none),
            _ => configs.possible.push(change),
        }
    })
    .await;
    state.into_inner()
}
