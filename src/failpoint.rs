//! Crash tests: the process sends itself SIGKILL at the failpoint that `FAIL_KILL_AT` names, and SIGSTOP, until a test sends
//! SIGCONT, at the one that `FAIL_STOP_AT` names. `FAIL_KILL_NATS_AT` holds a failpoint and the process id of a nats-server,
//! which is killed there, once. If both name the same failpoint, the server goes first. A thread panics at the failpoint that
//! `FAIL_PANIC_AT` names. `FAIL_CLOCK_AHEAD` shifts the process's wall clock by that many seconds, and `FAIL_CLOCK_FILE` names a
//! file with that number, which may change. With `FAIL_LATER_RELEASE` it seals objects with a field that this release does not
//! know, as a later release may.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::config;
use crate::secret::Secret;

/// The field of a later release.
const LATER_FIELD: &str = r#""of_later_release":{"number":1}"#;
/// Interval at which `FAIL_CLOCK_FILE` is read.
const CLOCK_FILE_INTERVAL: Duration = Duration::from_millis(10);

/// Arms the failpoints that the environment names.
pub fn arm() {
    let own = std::process::id().to_string();
    let mut victims: BTreeMap<String, Vec<String>> = BTreeMap::new();
    if let Some((failpoint, server)) = config::env("FAIL_KILL_NATS_AT").as_deref().and_then(|it| it.split_once(' ')) {
        victims.entry(failpoint.to_owned()).or_default().push(server.to_owned());
    }
    if let Some(failpoint) = config::env("FAIL_KILL_AT") {
        victims.entry(failpoint).or_default().push(own.clone());
    }
    for (failpoint, victims) in victims {
        let (own, is_first) = (own.clone(), AtomicBool::new(true));
        let armed = fail::cfg_callback(failpoint, move || {
            if !is_first.swap(false, Ordering::Relaxed) {
                return;
            }
            for victim in &victims {
                drop(signal("-KILL", victim));
            }
            if victims.contains(&own) {
                // Nothing after the failpoint may run while the signal is delivered.
                std::thread::sleep(Duration::from_mins(1));
            }
        });
        drop(armed);
    }
    if let Some(failpoint) = config::env("FAIL_PANIC_AT") {
        drop(fail::cfg(failpoint, "panic"));
    }
    if let Some(seconds) = config::env("FAIL_CLOCK_AHEAD") {
        drop(fail::cfg("system_clock", &format!("return({seconds})")));
    }
    if config::env("FAIL_LATER_RELEASE").is_some() {
        drop(fail::cfg("later_release", "return"));
    }
    if let Some(file) = config::env("FAIL_CLOCK_FILE") {
        std::thread::spawn(move || {
            loop {
                let seconds = std::fs::read_to_string(&file).unwrap_or_default();
                drop(fail::cfg("system_clock", &format!("return({})", seconds.trim())));
                std::thread::sleep(CLOCK_FILE_INTERVAL);
            }
        });
    }
    if let Some(failpoint) = config::env("FAIL_STOP_AT") {
        let armed = fail::cfg_callback(failpoint, move || {
            let stopped = signal("-STOP", &own);
            // The signal may stop another thread first. Wait until it stops this one too.
            std::thread::sleep(Duration::from_millis(500));
            drop(stopped);
        });
        drop(armed);
    }
}

/// The value with one more field, if it is a JSON object that has others.
pub(crate) fn of_later_release(value: &Secret) -> Secret {
    let text = value.expose();
    if !text.starts_with("{\"") || text.contains(LATER_FIELD) {
        return value.clone();
    }
    Secret::new(text.replacen('{', &format!("{{{LATER_FIELD},"), 1))
}

fn signal(name: &str, process: &str) -> std::io::Result<std::process::ExitStatus> {
    Command::new("kill").args([name, process]).status()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_gets_one_field_of_a_later_release() {
        let check = |value: &str, expected: &str| {
            assert_eq!(of_later_release(&Secret::new(value.to_owned())).expose(), expected);
        };
        let later = r#"{"of_later_release":{"number":1},"a":{"b":2}}"#;
        check(r#"{"a":{"b":2}}"#, later);
        check(later, later);
        check("{}", "{}");
        check("a verifier", "a verifier");
    }
}
