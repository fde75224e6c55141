//! Second tries of calls without an answer, to all workers.
//!
//! A second try helps when the worker that has the first one is dead or stopped. When all workers are overloaded, it would add
//! to the overload. The two look different: answers to first tries come at once, or late. So no call gets a second try while
//! most first tries are answered late.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Time without an answer after which a call that two workers may carry out goes to all workers. Far above the time of a read,
/// so that few calls are sent twice, and far below [`READ_TIMEOUT`](super::READ_TIMEOUT).
const SECOND_TRY_AFTER: Duration = Duration::from_millis(1_500);
/// An answer that takes longer is late. Half of the time after which a second try would be sent, so that a growing overload
/// is noticed before it leads to any.
const LATE: Duration = Duration::from_millis(750);

/// The last 32 answered first tries, one bit each: 1 if the answer was late.
#[derive(Debug, Default)]
pub(super) struct SecondTries(AtomicU32);

impl SecondTries {
    /// Returns the answer of the first try, or of the second one, which begins after [`SECOND_TRY_AFTER`]. A second try that
    /// fails without an answer leaves the first one.
    pub(super) async fn answer<T, E>(
        &self,
        first: impl Future<Output = Result<T, E>>,
        mut again: impl Future<Output = Result<T, E>> + Unpin,
    ) -> Result<T, E> {
        let began = Instant::now();
        let mut first = std::pin::pin!(async {
            let answer = first.await;
            // An overloaded worker refuses at once, so a refusal says nothing about the load.
            if answer.is_ok() {
                self.record(began.elapsed() > LATE);
            }
            answer
        });
        if let Ok(answer) = tokio::time::timeout(SECOND_TRY_AFTER, &mut first).await {
            return answer;
        }
        if self.is_overload() {
            return first.await;
        }
        tokio::select! {
            answer = &mut first => answer,
            answer = &mut again => match answer {
                Ok(answer) => Ok(answer),
                Err(_unanswered_or_refused) => first.await,
            },
        }
    }

    fn record(&self, is_late: bool) {
        let update = |answers: u32| Some((answers << 1) | u32::from(is_late));
        // The closure always returns a value, so the update succeeds.
        let _previous = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
    }

    fn is_overload(&self) -> bool {
        self.0.load(Ordering::Relaxed).count_ones() > u32::BITS / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h10_most_of_the_last_answers_decide() {
        let tries = SecondTries::default();
        let record = |count: u32, is_late: bool| (0..count).for_each(|_| tries.record(is_late));
        record(16, true);
        assert!(!tries.is_overload());
        record(1, true);
        assert!(tries.is_overload());
        record(16, false);
        assert!(!tries.is_overload());
    }

    #[tokio::test(start_paused = true)]
    async fn h10_a_call_is_sent_again_unless_answers_are_late() {
        let tries = SecondTries::default();
        let never = || std::future::pending::<Result<&str, ()>>();
        let again = || Box::pin(async { Ok("again") });
        assert_eq!(tries.answer(never(), again()).await, Ok("again"));
        let late = || async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            Ok("first")
        };
        // The second try wins over a late first one, which then is not recorded.
        assert_eq!(tries.answer(late(), again()).await, Ok("again"));
        (0..17).for_each(|_| tries.record(true));
        assert_eq!(tries.answer(late(), again()).await, Ok("first"));
    }
}
