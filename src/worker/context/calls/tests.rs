use futures_util::FutureExt as _;

use super::*;

fn calls(permits: usize) -> Arc<Calls> {
    Calls::new(Limit::fixed(permits), Kind::Commands)
}

/// Queues a call, and takes its permit.
async fn take(calls: &Arc<Calls>, account: &str) -> CallPermit {
    calls.queue(account).expect("few wait").permit().await.expect("a permit is free")
}

async fn is_refused(call: QueuedCall) -> bool {
    call.permit().await.is_err()
}

/// Fills the queue, until most calls were refused for long enough. Returns those that wait.
async fn flood(calls: &Arc<Calls>, account: &str) -> Vec<QueuedCall> {
    let waiting = (0..MOST_WAITING).map(|_| calls.queue(account).expect("a burst")).collect();
    for _ in 0..2 * MOST_WAITING {
        assert!(calls.queue(account).is_err(), "the queue is full");
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    waiting
}

#[tokio::test(start_paused = true)]
async fn in_a_flood_few_calls_wait() {
    let calls = calls(2);
    let running = [take(&calls, "many").await, take(&calls, "many").await];
    let waiting = flood(&calls, "many").await;
    let one = calls.queue("one").expect("one of the many has to leave");
    assert!(calls.queue("many").is_err(), "two wait");
    drop(running);
    let mut accepted = 0;
    for call in waiting {
        accepted += usize::from(!is_refused(call).await);
    }
    assert_eq!((accepted, is_refused(one).await), (1, false));
    // Refused are fewer than accepted now.
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        drop(take(&calls, "many").await);
    }
    let burst: Vec<_> = (0..MOST_WAITING).map(|_| calls.queue("many").expect("the flood is over")).collect();
    assert_eq!(burst.len(), MOST_WAITING);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waited_for_too_long_is_refused() {
    let calls = calls(1);
    let _running = take(&calls, "one").await;
    assert!(is_refused(calls.queue("other").expect("none waits")).await);
}

#[tokio::test(start_paused = true)]
async fn a_call_leaves_its_permit_to_its_command_for_a_moment() {
    let calls = calls(1);
    take(&calls, "one").await.reserve();
    let other = calls.queue("other").expect("none waits");
    let command = calls.permit_for_command("another").now_or_never().expect("a call has left it a permit");
    assert!(calls.lock().queue.is_full());
    drop(command);
    let other = other.permit().await.expect("the command has ended");
    other.reserve();
    let next = calls.queue("next").expect("none waits");
    tokio::time::sleep(LONGEST_HOLD / 2).await;
    assert!(calls.lock().queue.is_full());
    assert!(!is_refused(next).await, "the command has not come");
    assert!(!calls.lock().queue.is_full(), "all permits are back");
}

#[tokio::test(start_paused = true)]
async fn a_permit_whose_command_has_not_come_delays_no_later_call() {
    let calls = calls(1);
    take(&calls, "one").await.reserve();
    tokio::time::sleep(LONGEST_HOLD).await;
    let next = calls.queue("next").expect("none waits");
    let began = Instant::now();
    assert!(!is_refused(next).await);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_command_goes_ahead_of_calls() {
    let calls = calls(1);
    let running = take(&calls, "one").await;
    let waiting = calls.queue("other").expect("none waits");
    let command = calls.permit_for_command("one");
    let released = async {
        tokio::time::sleep(LONGEST_WAIT / 2).await;
        running.release();
    };
    let (command, ()) = tokio::join!(command, released);
    let (is_refused, ()) = tokio::join!(is_refused(waiting), async { command.release() });
    assert!(!is_refused, "it came before the command");
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_commands_run_waits_like_one_whose_calls_run() {
    let calls = calls(4);
    let mut commands = Vec::new();
    for _ in 0..2 {
        take(&calls, "many").await.reserve();
        commands.push(calls.permit_for_command("an account").await);
    }
    let _running = take(&calls, "one").await;
    let other = take(&calls, "other").await;
    let (many, one) = (calls.queue("many").expect("few wait"), calls.queue("one").expect("few wait"));
    drop(other);
    assert!(!is_refused(one).await, "it has fewer");
    drop(commands);
    assert!(!is_refused(many).await);
}

/// A login asks its provider for the identity and for metadata at once.
#[tokio::test(start_paused = true)]
async fn a_permit_that_is_taken_again_twice_is_one() {
    let calls = calls(1);
    let permit = take(&calls, "one").await;
    permit.release();
    let other = take(&calls, "other").await;
    for _ in 0..2 {
        permit.release();
        permit.retake();
        permit.retake();
    }
    drop(other);
    assert!(calls.lock().queue.is_full(), "work that has begun waits for no permit");
    drop(permit);
    assert!(!calls.lock().queue.is_full(), "all permits are back");
    let _running = take(&calls, "next").await;
}

#[tokio::test(start_paused = true)]
async fn a_gateways_own_call_is_not_refused_in_a_flood() {
    let calls = calls(1);
    let running = take(&calls, "many").await;
    let _waiting = flood(&calls, "many").await;
    let own = calls.queue_first().expect("few wait");
    assert!(calls.queue("many").is_err());
    drop(running);
    assert!(!is_refused(own).await);
}

#[tokio::test(start_paused = true)]
async fn a_permit_is_returned_once_it_was_held_for_too_long() {
    let calls = calls(1);
    let permit = take(&calls, "one").await;
    let work = async {
        tokio::time::sleep(LONGEST_HOLD / 2).await;
        permit.release();
        tokio::time::sleep(LONGEST_HOLD).await;
        permit.retake();
        tokio::time::sleep(LONGEST_HOLD / 2).await;
        assert!(calls.lock().queue.is_full(), "it is held for a short time");
        tokio::time::sleep(2 * LONGEST_HOLD).await;
        assert!(!calls.lock().queue.is_full(), "it was held for too long");
        7
    };
    assert_eq!(permit.bound(work).await, 7);
}

#[tokio::test(start_paused = true)]
async fn gateways_own_calls_without_end_are_refused() {
    let calls = calls(1);
    let _running = take(&calls, "one").await;
    let _waiting: Vec<_> = (0..MOST_FIRST).map(|_| calls.queue_first().expect("few wait")).collect();
    assert!(calls.queue_first().is_err());
}
