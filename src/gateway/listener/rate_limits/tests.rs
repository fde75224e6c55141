use super::*;
use crate::gateway::Limits;
use crate::secret::Secret;

fn gate(address: Rate, credential: Rate) -> Gate {
    Gate::new(Vec::new(), address, credential)
}

fn rate(per_second: u32, burst: u32) -> Rate {
    Rate { per_second, burst }
}

fn admitted(gate: &Gate, client: &str, times: usize) -> usize {
    let client = client.parse().unwrap();
    (0..times).filter(|_| gate.admit_address(client).is_ok()).count()
}

#[test]
fn g3_two_hundred_callbacks_at_once_are_let_through() {
    let limits = Limits::default();
    let defaults = crate::config::load(None).unwrap().http;
    assert_eq!(limits.address_rate, rate(defaults.address_rate, defaults.address_burst));
    assert_eq!(limits.credential_rate, rate(defaults.credential_rate, defaults.credential_burst));
    let gate = gate(limits.address_rate, limits.credential_rate);
    assert_eq!(admitted(&gate, "192.0.2.1", 200), 200);
    assert!(admitted(&gate, "192.0.2.1", 1_000_000) < 900_000, "but not without an end");
}

#[test]
fn g3_an_ipv6_site_is_one_client() {
    let gate = gate(rate(1, 5), rate(1, 1));
    let of_one_site = (0..1000).filter(|n| admitted(&gate, &format!("2001:db8:0:1:{n:x}::{n:x}"), 1) == 1).count();
    assert!((5..500).contains(&of_one_site), "{of_one_site}");
    assert_eq!(admitted(&gate, "2001:db8:0:2::1", 1), 1);
    assert_eq!(admitted(&gate, "192.0.2.1", 1), 1);
}

#[test]
fn g3_credentials_are_counted_apart_and_zero_is_no_limit() {
    let credential = |text: &str| Credential::new(Secret::new(text));
    let limited = gate(rate(0, 5), rate(1, 1));
    assert_eq!(admitted(&limited, "192.0.2.1", 10_000), 10_000);
    assert!(limited.admit_credential(&credential("X-Api-Key a")).is_ok());
    let error = (0..1000).find_map(|_| limited.admit_credential(&credential("X-Api-Key a")).err());
    assert_eq!(error.unwrap().to_string(), "too many requests from this credential; try again in 1 s");
    assert!(limited.admit_credential(&credential("X-Api-Key b")).is_ok());
}

#[test]
fn g3_counters_are_bounded_whoever_comes() {
    let counters = Counters::new(rate(1, 1));
    for n in 0..2 * COUNTERS {
        let _ = counters.admit(&n);
    }
    let held = counters.limiter.as_ref().unwrap().len() as u64;
    assert!((COUNTERS / 2..=COUNTERS).contains(&held), "{held}");
}

#[test]
fn f1_a_gate_prints_no_credential() {
    let gate = gate(rate(1, 1), rate(1, 1));
    let _ = gate.admit_credential(&Credential::new(Secret::new("X-Api-Key canary")));
    assert!(!format!("{gate:?}").contains("canary"));
}
