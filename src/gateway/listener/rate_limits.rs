//! Limits the rate of requests per client address and per credential. Credentials are counted here, not verified.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::command::Credential;
use crate::gateway::routes::error::HttpError;

/// Counters of one kind. Clients are spread over them by a hash that only this process knows. So memory is bounded
/// however many clients come (256 Ki counters of a few words), and clients cannot choose their counter. Two clients that
/// share a counter share its allowance.
const COUNTERS: u64 = 1 << 18;

/// A rate or burst of 0 sets no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    pub per_second: u32,
    /// Requests at once after a pause.
    pub burst: u32,
}

pub(in crate::gateway) struct RateLimits {
    addresses: Counters,
    credentials: Counters,
}

struct Counters {
    limiter: Option<DefaultKeyedRateLimiter<u32>>,
    clock: DefaultClock,
    hasher: RandomState,
}

impl RateLimits {
    pub(in crate::gateway) fn new(address: Rate, credential: Rate) -> Self {
        Self { addresses: Counters::new(address), credentials: Counters::new(credential) }
    }

    /// Counts a request of this address, and rejects it if there were too many.
    pub(in crate::gateway) fn admit_address(&self, client: IpAddr) -> Result<(), HttpError> {
        let limited = |seconds| HttpError::Limited { whose: "address", seconds };
        self.addresses.admit(&network(client)).map_err(limited)
    }

    /// Counts a request with this credential, and rejects it if there were too many.
    pub(in crate::gateway) fn admit_credential(&self, credential: &Credential) -> Result<(), HttpError> {
        let limited = |seconds| HttpError::Limited { whose: "credential", seconds };
        self.credentials.admit(credential.rate_limit_key()).map_err(limited)
    }
}

impl Counters {
    fn new(Rate { per_second, burst }: Rate) -> Self {
        let quota = NonZeroU32::new(per_second).zip(NonZeroU32::new(burst));
        let limiter = quota.map(|(rate, burst)| RateLimiter::keyed(Quota::per_second(rate).allow_burst(burst)));
        Self { limiter, clock: DefaultClock::default(), hasher: RandomState::new() }
    }

    /// Returns the seconds to wait if there were too many requests.
    fn admit(&self, key: &(impl Hash + ?Sized)) -> Result<(), u64> {
        let Some(limiter) = &self.limiter else { return Ok(()) };
        let counter = u32::try_from(self.hasher.hash_one(key) % COUNTERS).unwrap_or_default();
        limiter.check_key(&counter).map_err(|refused| {
            let wait = refused.wait_time_from(self.clock.now());
            wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
        })
    }
}

/// The network that counts as one client: an IPv4 address, or the IPv6 /64 that one site owns whole.
pub(in crate::gateway) fn network(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

impl std::fmt::Debug for RateLimits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RateLimits").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
