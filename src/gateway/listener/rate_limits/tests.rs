use super::*;
use crate::gateway::Limits;
use crate::secret::Secret;

fn rate(per_second: u32, burst: u32) -> Rate {
    Rate { per_second, burst }
}

fn admitted(limits: &RateLimits, client: &str, times: usize) -> usize {
    let client = client.parse().unwrap();
    (0..times).filter(|_| limits.admit_address(client).is_ok()).count()
}

#[test]
fn g3_two_hundred_callbacks_at_once_are_let_through() {
    let defaults = Limits::default();
    let settings = crate::config::load(None).unwrap().http;
    assert_eq!(defaults.address_rate, rate(settings.address_rate, settings.address_burst));
    assert_eq!(defaults.credential_rate, rate(settings.credential_rate, settings.credential_burst));
    let limits = RateLimits::new(defaults.address_rate, defaults.credential_rate);
    assert_eq!(admitted(&limits, "192.0.2.1", 200), 200);
    assert!(admitted(&limits, "192.0.2.1", 1_000_000) < 900_000, "but not without an end");
}

#[test]
fn g3_an_ipv6_site_is_one_client() {
    let limits = RateLimits::new(rate(1, 5), rate(1, 1));
    let of_one_site = (0..1000).filter(|n| admitted(&limits, &format!("2001:db8:0:1:{n:x}::{n:x}"), 1) == 1).count();
    assert!((5..500).contains(&of_one_site), "{of_one_site}");
    assert_eq!(admitted(&limits, "2001:db8:0:2::1", 1), 1);
    assert_eq!(admitted(&limits, "192.0.2.1", 1), 1);
}

#[test]
fn g3_credentials_are_counted_apart_and_zero_is_no_limit() {
    let credential = |text: &str| Credential::new(Secret::new(text));
    let limited = RateLimits::new(rate(0, 5), rate(1, 1));
    assert_eq!(admitted(&limited, "192.0.2.1", 10_000), 10_000);
    assert!(limited.admit_credential(&credential("X-Api-Key a")).is_ok());
    let error = (0..1000).find_map(|_| limited.admit_credential(&credential("X-Api-Key a")).err());
    assert_eq!(error.unwrap().to_string(), "too many requests from this credential; try again in 1 s");
    assert!(limited.admit_credential(&credential("X-Api-Key b")).is_ok());
}

#[test]
fn g3_counters_are_bounded_however_many_clients_come() {
    let counters = Counters::new(rate(1, 1));
    for n in 0..2 * COUNTERS {
        let _ = counters.admit(&n);
    }
    let held = counters.limiter.as_ref().unwrap().len() as u64;
    assert!((COUNTERS / 2..=COUNTERS).contains(&held), "{held}");
}

#[test]
fn f1_rate_limits_print_no_credential() {
    let limits = RateLimits::new(rate(1, 1), rate(1, 1));
    let _ = limits.admit_credential(&Credential::new(Secret::new("X-Api-Key canary")));
    assert!(!format!("{limits:?}").contains("canary"));
}
