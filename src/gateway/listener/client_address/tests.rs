use super::*;

const PEER: &str = "10.0.0.1";

#[track_caller]
fn check(lines: &[(&'static str, &str)], expected: &str) {
    check_from(PEER, lines, expected);
}

#[track_caller]
fn check_from(peer: &str, lines: &[(&'static str, &str)], expected: &str) {
    let trusted = ["10.0.0.0/8", "2001:db8:1::/48"].map(|network| network.parse().unwrap());
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let value = header::HeaderValue::from_bytes(value.as_bytes()).unwrap();
        headers.append(HeaderName::from_static(name), value);
    }
    let found = client(peer.parse().unwrap(), &headers, &trusted);
    assert_eq!(found, expected.parse::<IpAddr>().unwrap(), "{peer} {lines:?}");
}

fn both(value: &str, expected: &str) {
    check(&[("x-forwarded-for", value)], expected);
    let element = |entry: &str| format!("for=\"{}\";proto=https", entry.trim());
    let forwarded = value.split(',').map(element).collect::<Vec<_>>().join(", ");
    check(&[("forwarded", &forwarded)], expected);
}

#[test]
fn g3_headers_count_only_from_trusted_peers() {
    check_from("192.0.2.9", &[("x-forwarded-for", "192.0.2.1")], "192.0.2.9");
    check_from("192.0.2.9", &[("forwarded", "for=192.0.2.1")], "192.0.2.9");
    check_from("::ffff:192.0.2.9", &[], "192.0.2.9");
    check_from("::ffff:10.0.0.1", &[("x-forwarded-for", "192.0.2.1")], "192.0.2.1");
    check_from("2001:db8:1::5", &[("x-forwarded-for", "192.0.2.1")], "192.0.2.1");
    check(&[], PEER);
}

#[test]
fn g3_the_right_most_untrusted_address_counts() {
    both("192.0.2.1", "192.0.2.1");
    both("192.0.2.1, 10.0.0.2, 10.0.0.3", "192.0.2.1");
    both("127.0.0.1, 198.51.100.7, 192.0.2.1, 10.0.0.2", "192.0.2.1");
    both("rubbish, \u{201c}, 192.0.2.1", "192.0.2.1");
    both("10.9.9.9, 10.0.0.2", "10.9.9.9");
    both("192.0.2.1:4711, 10.0.0.2:80", "192.0.2.1");
    both("2001:db8::1", "2001:db8::1");
    both("[2001:db8::1]:4711, [2001:db8:1::7]", "2001:db8::1");
    both("::ffff:192.0.2.1", "192.0.2.1");
    both("192.0.2.1, ::ffff:10.0.0.2", "192.0.2.1");
    check(&[("x-forwarded-for", "198.51.100.7"), ("x-forwarded-for", "192.0.2.1, 10.0.0.2")], "192.0.2.1");
    check(&[("forwarded", "For=192.0.2.1;by=10.0.0.1")], "192.0.2.1");
    check(&[("forwarded", "proto=https; FOR=\"[2001:db8::1]:_p\"")], "2001:db8::1");
    check(&[("forwarded", "for=\"a, for=192.0.2.1")], "192.0.2.1");
}

#[test]
fn g3_unreadable_headers_leave_the_peers_address() {
    for entry in [
        "",
        " ",
        "unknown",
        "_hidden",
        "192.0.2",
        "192.0.2.1.example",
        "[2001:db8::1",
        "[192.0.2.1]",
        "2001:db8::1]",
        "0x7f.1",
        "[2001:db8::1]x",
    ] {
        both(entry, PEER);
        both(&format!("192.0.2.1, {entry}"), PEER);
        both(&format!("192.0.2.1, {entry}, 10.0.0.2"), PEER);
    }
    check(&[("forwarded", "proto=https")], PEER);
    check(&[("forwarded", "for=192.0.2.1;for=192.0.2.2")], PEER);
    check(&[("forwarded", "for")], PEER);
}

#[test]
fn g3_contradicting_headers_leave_the_peers_address() {
    let own = ("x-forwarded-for", "192.0.2.1");
    check(&[own, ("forwarded", "for=192.0.2.1")], "192.0.2.1");
    check(&[own, ("forwarded", "for=198.51.100.7")], PEER);
    check(&[own, ("forwarded", "for=unknown")], PEER);
}
