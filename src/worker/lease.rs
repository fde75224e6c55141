//! The time for which a delivery holds its command.
//!
//! The server delivers a command again when its worker is silent for [`ACK_WAIT`]: the worker was stopped, its machine was
//! paused, or the bus was away. Another delivery may then have done anything, and a worker that continues must not undo it.
//! So a worker asks its lease before it writes, and before it sends a code or token. A lost lease stays lost.
//!
//! The server answers progress reports of lost deliveries too. Therefore a lease counts only its own clock: it is renewed
//! from the time at which an answered report was sent, if it was still held at that time.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::protocol::topology::ACK_WAIT;
use crate::store::StoreError;

pub(super) struct Lease(Mutex<State>);

/// Time that a delivery may take from the server to this process. The server counts from its start, a lease from its end.
/// Short beside the interval of reports, so that one lost report still does no harm.
///
/// In a network that stalls, a delivery may take as long as its pull lasts. Its lease then ends after the server has delivered
/// the command again. Nothing is sent twice all the same: a code is sent only by the delivery that has consumed the login, and
/// the next delivery of a refresh holds it for [`HOLD`](super::hold::HOLD), which has room for the delay.
pub(super) const TRANSIT: Duration = Duration::from_millis(500);

struct State {
    renewed: Instant,
    is_lost: bool,
    has_stored_record: bool,
    has_own_record: bool,
}

impl Lease {
    /// Begins with a time not later than the message's arrival in this process.
    pub(super) fn since(delivered: Instant) -> Self {
        Self(Mutex::new(State { renewed: delivered, is_lost: false, has_stored_record: false, has_own_record: false }))
    }

    /// Extends the lease after the server has answered a progress report that was sent at `sent`.
    pub(super) fn renew(&self, sent: Instant) {
        let mut state = self.lock();
        state.is_lost |= is_over(sent.duration_since(state.renewed));
        if !state.is_lost {
            state.renewed = state.renewed.max(sent);
        }
    }

    /// Returns the time before which the server does not deliver the command again, as far as is known now.
    pub(super) fn end(&self) -> Instant {
        self.lock().renewed + ACK_WAIT
    }

    /// Returns true while no other delivery of the command can have begun.
    pub(super) fn is_held(&self) -> bool {
        let mut state = self.lock();
        state.is_lost |= is_over(state.renewed.elapsed());
        !state.is_lost
    }

    /// # Errors
    /// [`StoreError::DeliveryLost`] if another delivery may do this command's work.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if self.is_held() || self.lock().has_own_record { Ok(()) } else { Err(StoreError::DeliveryLost) }
    }

    /// Ends the lease because the server was restarted, and may have lost the command. Then no other delivery may come, so this
    /// one applies its record.
    pub(super) fn lose(&self) {
        let mut state = self.lock();
        state.is_lost = true;
        state.has_own_record |= state.has_stored_record;
    }

    /// Reports that this delivery has stored the command's record. If the lease was lost by then, other deliveries may have
    /// ended without finding the record, so this one has to apply it.
    pub(super) fn record_stored(&self) {
        let is_held = self.is_held();
        let mut state = self.lock();
        state.has_stored_record = true;
        state.has_own_record |= !is_held;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_over(silence: Duration) -> bool {
    silence.saturating_add(TRANSIT) >= ACK_WAIT
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ago(seconds: u64) -> Instant {
        Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap()
    }

    #[test]
    fn a_lease_is_renewed_only_while_it_is_held() {
        #[track_caller]
        fn check(delivered: u64, reports: &[u64], is_held: bool) {
            let lease = Lease::since(ago(delivered));
            for sent in reports {
                lease.renew(ago(*sent));
            }
            assert_eq!(lease.is_held(), is_held, "{delivered} {reports:?}");
            lease.renew(Instant::now());
            assert_eq!(lease.is_held(), is_held, "a lost lease stays lost");
        }
        check(0, &[], true);
        check(4, &[], true);
        check(6, &[], false);
        check(6, &[4, 2], true);
        check(9, &[3], false);
        check(60, &[58, 56, 0], false);
    }

    #[test]
    fn h3_a_lease_ends_before_the_server_delivers_again() {
        let on_the_way = Instant::now().checked_sub(ACK_WAIT.checked_sub(TRANSIT).unwrap()).unwrap();
        assert!(!Lease::since(on_the_way).is_held());
    }

    #[test]
    fn a_lost_lease_keeps_its_end() {
        let lease = Lease::since(ago(60));
        lease.renew(ago(58));
        let end = lease.end();
        lease.renew(ago(1));
        assert_eq!(lease.end(), end);
        assert!(end < ago(52));
    }

    #[test]
    fn a_worker_with_its_own_record_continues() {
        let lease = Lease::since(ago(60));
        assert!(matches!(lease.check(), Err(StoreError::DeliveryLost)));
        lease.record_stored();
        assert!(lease.check().is_ok() && !lease.is_held());
    }

    #[test]
    fn a_restart_of_the_server_leaves_the_record_to_the_worker_that_has_stored_it() {
        let (with_record, without) = (Lease::since(Instant::now()), Lease::since(Instant::now()));
        with_record.record_stored();
        for lease in [&with_record, &without] {
            lease.lose();
            lease.renew(Instant::now());
        }
        assert!(with_record.check().is_ok() && !with_record.is_held());
        assert!(without.check().is_err());
        without.record_stored();
        assert!(without.check().is_ok());
    }
}
