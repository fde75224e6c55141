//! How often anybody may come: per client address and per credential. Nobody is judged here, only counted.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use hyper::header::HeaderMap;
use ipnet::IpNet;

use crate::command::Credential;
use crate::gateway::listener::client_address;
use crate::gateway::routes::error::HttpError;

/// Counters of one kind. Clients are spread over them by a hash that nobody outside can foresee, so memory is bounded
/// whoever comes: 256 Ki counters of a few words. Two clients that meet in one share its allowance.
const COUNTERS: u64 = 1 << 18;

/// Requests a second, and at once. A rate or burst of 0 sets no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// A second, in the long run.
    pub per_second: u32,
    /// At once, after a while of silence.
    pub burst: u32,
}

/// Who may come in, and how often.
pub(in crate::gateway) struct Gate {
    trusted: Vec<IpNet>,
    addresses: Counters,
    credentials: Counters,
}

struct Counters {
    limiter: Option<DefaultKeyedRateLimiter<u32>>,
    clock: DefaultClock,
    hasher: RandomState,
}

impl Gate {
    pub(in crate::gateway) fn new(trusted: Vec<IpNet>, address: Rate, credential: Rate) -> Self {
        Self { trusted, addresses: Counters::new(address), credentials: Counters::new(credential) }
    }

    /// Whose request it is.
    pub(in crate::gateway) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        client_address::client(peer, headers, &self.trusted)
    }

    /// Counts a request of that address.
    pub(in crate::gateway) fn admit_address(&self, client: IpAddr) -> Result<(), HttpError> {
        let limited = |seconds| HttpError::Limited { whose: "address", seconds };
        self.addresses.admit(&network(client)).map_err(limited)
    }

    /// Counts a request with that credential.
    pub(in crate::gateway) fn admit_credential(&self, credential: &Credential) -> Result<(), HttpError> {
        let limited = |seconds| HttpError::Limited { whose: "credential", seconds };
        self.credentials.admit(credential.counted_by()).map_err(limited)
    }
}

impl Counters {
    fn new(Rate { per_second, burst }: Rate) -> Self {
        let quota = NonZeroU32::new(per_second).zip(NonZeroU32::new(burst));
        let limiter = quota.map(|(rate, burst)| RateLimiter::keyed(Quota::per_second(rate).allow_burst(burst)));
        Self { limiter, clock: DefaultClock::default(), hasher: RandomState::new() }
    }

    /// The seconds to wait, when it is too much.
    fn admit(&self, key: &(impl Hash + ?Sized)) -> Result<(), u64> {
        let Some(limiter) = &self.limiter else { return Ok(()) };
        let counter = u32::try_from(self.hasher.hash_one(key) % COUNTERS).unwrap_or_default();
        limiter.check_key(&counter).map_err(|refused| {
            let wait = refused.wait_time_from(self.clock.now());
            wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
        })
    }
}

/// What counts as one client: an IPv4 address, or an IPv6 /64, which any one site has all of.
pub(in crate::gateway) fn network(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("trusted", &self.trusted).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
