//! For tests alone: this process kills itself, with SIGKILL, at the place that `FAIL_KILL_AT` names.

use std::process::Command;

use crate::config;

/// Arms the place, if one is named.
pub fn arm() {
    let Some(place) = config::env("FAIL_KILL_AT") else { return };
    let armed = fail::cfg_callback(place, || {
        let killed = Command::new("kill").args(["-KILL", &std::process::id().to_string()]).status();
        // Nothing may happen behind this place, not even while the signal is on its way.
        std::thread::sleep(std::time::Duration::from_mins(1));
        drop(killed);
    });
    drop(armed);
}
