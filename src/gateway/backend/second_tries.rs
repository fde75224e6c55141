//! Further tries of calls without an answer.
//!
//! A second try helps when the worker that has the first one is dead or stopped. When all workers are overloaded, it would add
//! to the overload. The latency of first tries tells the two apart. So no call gets a second try while most first tries are
//! answered late.
//!
//! When this gateway has reconnected, a call that it sent before, or the answer, may be lost. Then a try follows at once.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// Time without an answer after which a call that all workers may carry out goes to all workers. Far above the time of a read,
/// so that few calls are sent twice, and far below [`READ_TIMEOUT`](super::calls::READ_TIMEOUT).
pub(super) const SECOND_TRY_AFTER: Duration = Duration::from_millis(1_500);
/// An answer that takes longer is late. Half of the time after which a second try would be sent, so that a growing overload
/// is noticed before it leads to any.
const LATE: Duration = Duration::from_millis(750);
/// Interval of looks at the connection.
const LOOK: Duration = Duration::from_millis(100);

/// The last 32 answered first tries, one bit each: 1 if the answer was late.
#[derive(Debug, Default)]
pub(super) struct SecondTries(AtomicU32);

/// Why a call is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// It has no answer after [`Tries::late_after`].
    Late,
    /// The connection was lost.
    Reconnected,
}

/// How a call without an answer is tried again.
pub(super) struct Tries<A, L, E> {
    pub(super) late_after: Duration,
    /// True if only the load of the workers makes the answer late, and no provider.
    pub(super) shows_load: bool,
    /// Makes another try.
    pub(super) again: A,
    /// Returns true once after each reconnection.
    pub(super) was_lost: L,
    /// Returns true for an error that ends the call even if the first try has no answer. After any other error of a later
    /// try, the first one may still be answered.
    pub(super) is_end: fn(&E) -> bool,
    /// Returns true for an error of a try that may still be carried out.
    pub(super) may_run: fn(&E) -> bool,
    /// Returns true if nothing answered a try. The refusal of a later one then says more.
    pub(super) is_silence: fn(&E) -> bool,
}

impl SecondTries {
    /// Returns the first answer of the tries. At most two run at once. A refusal of the first try is the answer only if no later
    /// try may still be carried out: the caller would take it for the whole.
    pub(super) async fn answer<T, E, F>(
        &self,
        first: impl Future<Output = Result<T, E>>,
        mut tries: Tries<impl FnMut(Why) -> F, impl FnMut() -> bool, E>,
    ) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>> + Unpin,
    {
        let (began, shows_load) = (Instant::now(), tries.shows_load);
        let mut first = std::pin::pin!(async {
            let answer = first.await;
            // An overloaded worker refuses at once, so a refusal says nothing about the load.
            if answer.is_ok() && shows_load {
                self.record(began.elapsed() > LATE);
            }
            answer
        });
        let (mut second, mut is_late): (Option<F>, bool) = (None, false);
        let (mut running, mut refused): (Option<E>, Option<E>) = (None, None);
        // A try that may still be carried out decides, and not one that was refused.
        let failure = |first: E, running: Option<E>, refused: Option<E>| match running {
            Some(running) => running,
            None if (tries.is_silence)(&first) && !(tries.may_run)(&first) => refused.unwrap_or(first),
            None => first,
        };
        let mut look = interval_at(began + LOOK, LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                answer = &mut first => return match (answer, second) {
                    (Err(error), Some(second)) if !(tries.is_end)(&error) => match second.await {
                        Err(later) if !(tries.may_run)(&later) => Err(failure(error, running, Some(later))),
                        answer => answer,
                    },
                    (Err(error), None) => Err(failure(error, running, refused)),
                    (answer, _) => answer,
                },
                answer = next_of(&mut second) => match answer {
                    Err(error) if !(tries.is_end)(&error) => {
                        second = None;
                        if (tries.may_run)(&error) {
                            running = running.or(Some(error));
                        } else if !(tries.is_silence)(&error) {
                            refused = Some(error);
                        }
                    }
                    answer => return answer,
                },
                _ = look.tick() => {
                    if (tries.was_lost)() {
                        second = Some((tries.again)(Why::Reconnected));
                    } else if !is_late && began.elapsed() >= tries.late_after {
                        is_late = true;
                        if second.is_none() && !self.is_overload() {
                            second = Some((tries.again)(Why::Late));
                        }
                    }
                }
            }
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

async fn next_of<F: Future + Unpin>(second: &mut Option<F>) -> F::Output {
    match second {
        Some(second) => second.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    type Made = std::pin::Pin<Box<dyn Future<Output = Result<&'static str, &'static str>>>>;

    fn never() -> Made {
        Box::pin(std::future::pending())
    }

    fn after(seconds: u64, answer: Result<&'static str, &'static str>) -> Made {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            answer
        })
    }

    /// Tries again with these answers. The connection was lost before the third look.
    fn again(
        answer: Result<&'static str, &'static str>,
        loses: bool,
    ) -> Tries<impl FnMut(Why) -> Made, impl FnMut() -> bool, &'static str> {
        let looks = Cell::new(0);
        Tries {
            late_after: SECOND_TRY_AFTER,
            shows_load: true,
            again: move |why| match (why, loses) {
                (Why::Reconnected, _) => after(0, Ok("reconnected")),
                (Why::Late, true) => never(),
                (Why::Late, false) => after(0, answer),
            },
            was_lost: move || {
                looks.set(looks.get() + 1);
                loses && looks.get() == 3
            },
            is_end: |error| *error == "end",
            may_run: |error| *error == "running",
            is_silence: |error| *error == "silence",
        }
    }

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
        assert_eq!(tries.answer(never(), again(Ok("again"), false)).await, Ok("again"));
        // The second try wins over a late first one, which then is not recorded.
        assert_eq!(tries.answer(after(2, Ok("first")), again(Ok("again"), false)).await, Ok("again"));
        (0..17).for_each(|_| tries.record(true));
        assert_eq!(tries.answer(after(2, Ok("first")), again(Ok("again"), false)).await, Ok("first"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_sent_again_on_a_new_connection_even_while_answers_are_late() {
        let (tries, began) = (SecondTries::default(), Instant::now());
        (0..17).for_each(|_| tries.record(true));
        assert_eq!(tries.answer(never(), again(Ok("again"), true)).await, Ok("reconnected"));
        assert!(began.elapsed() < LATE);
        assert_eq!(tries.answer(after(0, Ok("first")), again(Ok("again"), true)).await, Ok("first"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_second_try_ends_the_call_only_if_its_error_does() {
        let tries = SecondTries::default();
        let first = || after(3, Ok("first"));
        assert_eq!(tries.answer(first(), again(Err("refused"), false)).await, Ok("first"));
        assert_eq!(tries.answer(first(), again(Err("end"), false)).await, Err("end"));
        assert_eq!(tries.answer(after(0, Err("refused")), again(Ok("again"), false)).await, Err("refused"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_second_try_says_more_than_the_silence_of_the_first() {
        let tries = SecondTries::default();
        let silent = || after(5, Err("silence"));
        assert_eq!(tries.answer(silent(), again(Err("busy"), false)).await, Err("busy"));
        assert_eq!(tries.answer(silent(), again(Err("silence"), false)).await, Err("silence"));
        assert_eq!(tries.answer(after(5, Err("refused")), again(Err("busy"), false)).await, Err("refused"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_first_try_is_the_answer_only_if_no_later_try_may_run() {
        type Answer = Result<&'static str, &'static str>;
        let check = async |first: u64, (second, answer): (u64, Answer), expected: Answer| {
            let tries = Tries {
                late_after: SECOND_TRY_AFTER,
                shows_load: true,
                again: move |_why| after(second, answer),
                was_lost: || false,
                is_end: |_error| false,
                may_run: |error| *error == "running",
                is_silence: |_error| false,
            };
            let (calls, first) = (SecondTries::default(), after(first, Err("refused")));
            assert_eq!(calls.answer(first, tries).await, expected, "{second} s, {answer:?}");
        };
        // The later try begins after 1.5 s, and ends after the first one, or before it.
        check(2, (3, Ok("again")), Ok("again")).await;
        check(2, (3, Err("running")), Err("running")).await;
        check(2, (3, Err("copy")), Err("refused")).await;
        check(5, (1, Err("running")), Err("running")).await;
        check(5, (1, Err("copy")), Err("refused")).await;
    }
}
