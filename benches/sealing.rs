//! Time to seal a token of 1 KiB for storage, and to open it again. `cargo bench --bench sealing`.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a bench that cannot continue panics with the reason"
)]

use std::hint::black_box;
use std::time::Instant;

use tokenbus::Secret;
use tokenbus::internals::config;
use tokenbus::internals::seal::{Keyring, SealContext, generate};

const ROUNDS: usize = 200;
const VALUES: u32 = 500;
/// Upper limit for opening a value, in nanoseconds.
const LIMIT: f64 = 5_000.0;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let keys_file = folder.path().join("keys");
    generate(&keys_file).expect("a keyring");
    let secrets = config::Secrets { keys_file, keys: Secret::default(), key_command: Vec::new() };
    let keyring = runtime.block_on(Keyring::load(&secrets)).expect("a keyring");

    let token = Secret::new("x".repeat(1024));
    let key = "AC75JGNMJHTRQNXCBDMIAJCJ57HAEWP2RGWXJCIFFGW2K64OKG267A2D.slack.workspace1";
    let context =
        SealContext { bucket: "oauth_connections", key, field: "access_token", sequence: 1_234_567, bound_to: "" };
    let sealed = keyring.seal(context, &token).expect("it seals");
    let seal = median(|| drop(black_box(keyring.seal(black_box(context), &token).expect("it seals"))));
    let open = median(|| drop(black_box(keyring.open(black_box(context), &sealed).expect("it opens"))));
    println!("seal 1 KiB: {seal:.0} ns per value");
    println!("open 1 KiB: {open:.0} ns per value");
    assert!(open < LIMIT, "a value is opened in less than {LIMIT} ns");
}

/// Nanoseconds per call: the median of many rounds.
fn median(call: impl Fn()) -> f64 {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            (0..VALUES).for_each(|_| call());
            began.elapsed().as_secs_f64() * 1e9 / f64::from(VALUES)
        })
        .collect();
    rounds.sort_unstable_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}
