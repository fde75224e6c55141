//! Checks that the server and the streams fit together: one server or a cluster, and when messages are written to disk.

use super::report::Check;
use crate::jetstream::Nats;
use crate::protocol::topology::{OldShape, Sizes, TopologyError};

/// Says how a store gets into a cluster, because the obvious way deletes it.
const NEVER: &str = "never add a `cluster` block to the configuration of a server that has a store: 30 s after its start it deletes every stream";

pub(super) fn cluster(nats: &Nats, sizes: Sizes) -> Check {
    const CHECK: &str = "cluster";
    match nats.client().server_info().cluster {
        Some(name) => Check::fine(CHECK, format!("the server belongs to cluster {name}")),
        None if sizes.replicas == 1 => Check::fine(CHECK, "one server, no cluster").and(NEVER),
        None => {
            let found = format!("`nats.replicas` is {}, and the server belongs to no cluster", sizes.replicas);
            let fix = "start a new cluster and move the store into it by `tokenbus backup --final` and `tokenbus restore` \
                       (docs/operations.md), or set `nats.replicas` to 1";
            Check::failed(CHECK, found).and(NEVER).fix(fix)
        }
    }
}

/// Checks the shape that an update cannot change.
pub(super) fn persistence(found: Result<Vec<OldShape>, TopologyError>) -> Check {
    const CHECK: &str = "persistence";
    let old = match found {
        Ok(old) if old.is_empty() => return Check::fine(CHECK, "messages are written to disk as the settings ask"),
        Ok(old) => old,
        Err(error) => return Check::failed(CHECK, error.to_string()),
    };
    let mut check = Check::warning(CHECK, "streams have an older shape than the settings ask for:");
    for OldShape { stream, is_async } in old {
        let cost = if is_async {
            "acknowledged before it is on disk: a crash of the server loses messages of its last milliseconds, a loss of power \
             those of up to two minutes"
        } else {
            "on disk before it is acknowledged: callbacks and refreshes wait for more writes than they need, and take about \
             twice as long"
        };
        check = check.and(format!("  {stream}: {cost}"));
    }
    check.fix("stop all gateways and workers, and run `tokenbus setup --rebuild DIR` as `setup` with the keyring")
}
