//! For tests alone: this process kills itself with SIGKILL at the place that `FAIL_KILL_AT` names, and stands still
//! with SIGSTOP, until somebody sends SIGCONT, at the one that `FAIL_STOP_AT` names.

use std::process::Command;
use std::time::Duration;

use crate::config;

/// Arms the places that are named.
pub fn arm() {
    let signal = |name: &str| Command::new("kill").args([name, &std::process::id().to_string()]).status();
    if let Some(place) = config::env("FAIL_KILL_AT") {
        let armed = fail::cfg_callback(place, move || {
            let killed = signal("-KILL");
            // Nothing may happen behind this place, not even while the signal is on its way.
            std::thread::sleep(Duration::from_mins(1));
            drop(killed);
        });
        drop(armed);
    }
    if let Some(place) = config::env("FAIL_STOP_AT") {
        let armed = fail::cfg_callback(place, move || {
            let stopped = signal("-STOP");
            // The signal may reach another thread first; this one waits for it here.
            std::thread::sleep(Duration::from_millis(500));
            drop(stopped);
        });
        drop(armed);
    }
}
