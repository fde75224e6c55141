//! Crash tests: the process sends itself SIGKILL at the failpoint that `FAIL_KILL_AT` names, and SIGSTOP, until a test sends
//! SIGCONT, at the one that `FAIL_STOP_AT` names. `FAIL_CLOCK_AHEAD` shifts the process's wall clock by that many seconds, and
//! `FAIL_CLOCK_FILE` names a file with that number, which may change.

use std::process::Command;
use std::time::Duration;

use crate::config;

/// Interval at which `FAIL_CLOCK_FILE` is read.
const CLOCK_FILE_INTERVAL: Duration = Duration::from_millis(10);

/// Arms the failpoints that the environment names.
pub fn arm() {
    let signal = |name: &str| Command::new("kill").args([name, &std::process::id().to_string()]).status();
    if let Some(failpoint) = config::env("FAIL_KILL_AT") {
        let armed = fail::cfg_callback(failpoint, move || {
            let killed = signal("-KILL");
            // Nothing after the failpoint may run while the signal is delivered.
            std::thread::sleep(Duration::from_mins(1));
            drop(killed);
        });
        drop(armed);
    }
    if let Some(seconds) = config::env("FAIL_CLOCK_AHEAD") {
        drop(fail::cfg("system_clock", &format!("return({seconds})")));
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
            let stopped = signal("-STOP");
            // The signal may stop another thread first. Wait until it stops this one too.
            std::thread::sleep(Duration::from_millis(500));
            drop(stopped);
        });
        drop(armed);
    }
}
