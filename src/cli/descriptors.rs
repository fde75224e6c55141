//! File descriptors: each connection of a client needs one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

/// Descriptors that connections of clients leave free: NATS, providers (16 idle connections for each host), listeners, files.
const RESERVE: usize = 512;

/// Raises the limit of open files to the most that is allowed, and returns it. Many systems start processes with 1,024.
pub(super) fn raise_limit() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(error) => {
            warn!("the limit of open files stays as it is: {error}");
            current
        }
    };
    // None is no limit.
    raised.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// The connections that fit: at most as many as the settings allow, and fewer if the limit of open files is lower.
pub(super) fn connections(wanted: usize, limit: usize) -> usize {
    let fitting = limit.saturating_sub(RESERVE).max(limit / 2).max(1);
    if fitting < wanted {
        info!(
            limit,
            connections = fitting,
            "the limit of open files allows fewer connections than `http.max_connections`"
        );
    }
    fitting.min(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o15_connections_leave_a_reserve_of_descriptors() {
        assert_eq!(connections(4096, 1_048_576), 4096);
        assert_eq!(connections(4096, usize::MAX), 4096);
        assert_eq!(connections(4096, 4096), 3584);
        assert_eq!(connections(4096, 256), 128);
        assert_eq!(connections(100, 4096), 100);
    }

    #[test]
    fn o15_the_limit_is_raised() {
        let limit = raise_limit();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!(current, maximum);
        assert!(limit > RESERVE);
    }
}
