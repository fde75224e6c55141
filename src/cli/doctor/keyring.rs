//! Checks of the keyring: it is readable, and has all keys in use.

use super::report::{Check, Report};
use crate::config::Config;
use crate::jetstream::{Nats, kv};
use crate::seal::Keyring;
use crate::subject::{META, META_KEYS};

pub(super) async fn load(config: &Config, report: &mut Report) -> Option<Keyring> {
    match Keyring::load(&config.secrets).await {
        Ok(keyring) => {
            if keyring.is_open_to_all() {
                let found = "all users of this machine can read its file";
                report.add(Check::warning("keyring's file", found).fix("make it private: `chmod o-r`"));
            }
            report.add(Check::fine("keyring", format!("readable, with the keys {}", keyring.key_ids().join(", "))));
            Some(keyring)
        }
        Err(error) => {
            report.add(Check::failed("keyring", error.to_string()).fix(
                "copy the keyring of the other workers; for the first worker, create one with `tokenbus keys generate`",
            ));
            None
        }
    }
}

/// Checks that the keyring has every key that a stored value is sealed with.
pub(super) async fn compare(nats: &Nats, keyring: &Keyring) -> Check {
    const CHECK: &str = "keys in use";
    let entry = match kv::get(nats, META, META_KEYS).await {
        Ok(entry) => entry,
        Err(error) => return Check::failed(CHECK, format!("`{META}` cannot be read: {error}")),
    };
    let Some(value) = entry.and_then(|entry| entry.value) else {
        return Check::fine(CHECK, "none yet");
    };
    let Ok(used) = serde_json::from_slice::<Vec<String>>(&value) else {
        return Check::failed(CHECK, format!("`{META_KEYS}` in `{META}` is not a list of key ids"));
    };
    let known = keyring.key_ids();
    let missing: Vec<&str> = used.iter().filter(|id| !known.contains(id)).map(String::as_str).collect();
    if missing.is_empty() {
        return Check::fine(CHECK, format!("{}: all in the keyring", used.join(", ")));
    }
    Check::failed(CHECK, format!("not in the keyring: {}", missing.join(", ")))
        .fix("add these keys to the keyring: values sealed with them cannot be opened otherwise")
}
