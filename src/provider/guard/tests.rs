use ipnet::Ipv6Net;

use super::*;

fn guard(allowed: &[&str], insecure: bool) -> Guard {
    Guard {
        allowed_hosts: allowed.iter().map(|&host| host.to_owned()).collect(),
        allow_insecure_urls: insecure,
        ..Guard::default()
    }
}

#[track_caller]
fn check(address: &str, expected: bool) {
    assert_eq!(is_public(address.parse().unwrap()), expected, "{address}");
}

const SPECIAL_V4: &str = "0.0.0.0 0.1.2.3 10.0.0.0 10.255.255.255 100.64.0.0 100.127.255.255 127.0.0.1 127.255.255.255 \
    169.254.0.1 169.254.169.254 172.16.0.0 172.31.255.255 192.0.0.1 192.0.2.1 192.88.99.1 192.168.0.0 \
    192.168.255.255 198.18.0.0 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 \
    240.0.0.1 255.255.255.255";
const SPECIAL_V6: &str = ":: ::1 ::8.8.8.8 ::ffff:0:8.8.8.8 ::ffff:8.8.8.8 64:ff9b:1::1 100::1 fc00::1 fd00:ec2::254 \
    fdff:ffff::1 fe80::1 febf::1 fec0::1 ff02::1 ff0e::1 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 \
    2001:10::1 2001:20::1 2001:db8::1 2002:7f00:1:: 2002:808:808:: 2620:4f:8000::1 3fff::1 3fff:fff::1 \
    4000::1 5f00::1";
const PUBLIC: &str = "1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 \
    169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.167.255.255 192.169.0.0 198.17.255.255 \
    198.20.0.0 223.255.255.255 2001:200::1 2001:4860:4860::8888 2606:4700::1 2a00:1450::1 3ffe::1";

#[test]
fn c2_special_addresses_are_not_public() {
    for address in SPECIAL_V4.split(' ') {
        check(address, false);
        check(&format!("::ffff:{address}"), false);
        check(&format!("::{address}"), false);
        check(&format!("64:ff9b::{address}"), false);
    }
    for address in SPECIAL_V6.split(' ') {
        check(address, false);
    }
    for address in PUBLIC.split(' ') {
        check(address, true);
    }
}

#[test]
fn o6_addresses_inside_nat64_are_judged_by_the_ipv4_address_inside() {
    let allows = |address: &str| guard(&[], false).allows("acme.example", address.parse().unwrap());
    for address in PUBLIC.split(' ').filter(|address| address.contains('.')) {
        assert!(allows(&format!("64:ff9b::{address}")), "{address}");
    }
    for address in SPECIAL_V4.split(' ') {
        assert!(!allows(&format!("64:ff9b::{address}")), "{address}");
    }
    // The prefix of a network, which may be public or private itself.
    for prefix in ["2001:4860:64::/96", "fd00:64::/96", "fd00:64::/64", "fd00::/32", "fd00:64:1::/48"] {
        let nat64_prefixes: Vec<Ipv6Net> = vec![prefix.parse().unwrap()];
        let guard = Guard { nat64_prefixes, allowed_hosts: vec!["listed".to_owned()], ..Guard::default() };
        let allows = |host, address: &str| guard.allows(host, address.parse().unwrap());
        // 8.8.8.8, 10.0.0.1 and 169.254.169.254, as RFC 6052 §2.2 embeds them.
        let [public, private, never] = match prefix {
            "2001:4860:64::/96" => ["2001:4860:64::8.8.8.8", "2001:4860:64::10.0.0.1", "2001:4860:64::169.254.169.254"],
            "fd00:64::/96" => ["fd00:64::8.8.8.8", "fd00:64::10.0.0.1", "fd00:64::169.254.169.254"],
            "fd00:64::/64" => ["fd00:64::8:808:800:0", "fd00:64::a:0:100:0", "fd00:64::a9:fea9:fe00:0"],
            "fd00::/32" => ["fd00:0:808:808::", "fd00:0:a00:1::", "fd00:0:a9fe:a9fe::"],
            _ => ["fd00:64:1:808:8:800::", "fd00:64:1:a00:0:100::", "fd00:64:1:a9fe:a9:fe00::"],
        };
        assert!(allows("acme.example", public), "{public}");
        assert!(!allows("acme.example", private), "{private}");
        assert!(allows("listed", private), "{private}");
        assert!(!allows("listed", never), "{never}");
    }
}

#[test]
fn o6_only_what_can_be_a_prefix_of_nat64_is_taken() {
    #[track_caller]
    fn check(text: &str, expected: Result<&str, &str>) {
        let found = nat64_prefix(text).map(|prefix| prefix.to_string()).map_err(|error| error.to_string());
        match (&found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text}"),
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{text}: {found}"),
            _ => panic!("{text}: {found:?}, not {expected:?}"),
        }
    }
    for length in [32, 40, 48, 56, 64, 96] {
        for network in ["2001:4860::", "fd00::"] {
            let prefix = format!("{network}/{length}");
            check(&prefix, Ok(&prefix));
        }
    }
    check("64:ff9b::/96", Ok("64:ff9b::/96"));
    check("64:ff9b:1::/48", Ok("64:ff9b:1::/48"));
    check("fd00:64::1/96", Ok("fd00:64::/96"));
    for text in ["", "fd00::", "fd00::/16", "fd00::/72", "fd00::/128", "10.0.0.0/32"] {
        check(text, Err("32, 40, 48, 56, 64 or 96 bits, such as"));
    }
    check("fd00:64:0:0:0100::/96", Err("bits 64 to 71"));
    check("fd00:64:0:0:0001::/96", Ok("fd00:64:0:0:1::/96"));
    for (text, why) in [
        ("fe80::/64", "one link"),
        ("febf:ffff::/32", "one link"),
        ("ff02::/96", "multicast"),
        ("::/96", "loopback"),
        ("::/32", "loopback"),
        ("::ffff:0:0/96", "IPv4 itself"),
        ("2001::/32", "Teredo"),
        ("2002:808:808::/48", "6to4"),
    ] {
        check(text, Err(why));
        check(text, Err("ask the operator of the NAT64"));
    }
}

#[test]
fn c2_lists_open_private_addresses_and_loopback_needs_more() {
    let (none, open) = (guard(&[], false), guard(&[], true));
    let (listed, both) = (guard(&["idp.internal", "10.0.0.1"], false), guard(&["idp.internal"], true));
    for (guard, host, address, expected) in [
        (&none, "acme.example", "8.8.8.8", true),
        (&none, "acme.example", "10.0.0.1", false),
        (&none, "localhost", "127.0.0.1", false),
        (&open, "localhost", "127.0.0.1", true),
        (&open, "LOCALHOST.", "::1", true),
        (&open, "127.0.0.1", "127.0.0.1", true),
        (&open, "[::1]", "::1", true),
        (&open, "[::ffff:127.0.0.1]", "::ffff:127.0.0.1", true),
        (&open, "acme.example", "127.0.0.1", false),
        (&open, "acme.example", "10.0.0.1", false),
        (&listed, "idp.internal", "10.0.0.1", true),
        (&listed, "IDP.internal.", "fd00::1", true),
        (&listed, "10.0.0.1", "10.0.0.1", true),
        (&listed, "x.idp.internal", "10.0.0.1", false),
        (&listed, "idp.internal", "127.0.0.1", false),
        (&listed, "idp.internal", "::ffff:127.0.0.1", false),
        (&both, "idp.internal", "127.0.0.1", true),
        (&both, "idp.internal", "::1", true),
        // Never allowed, even for a listed host.
        (&both, "idp.internal", "169.254.169.254", false),
        (&both, "idp.internal", "::ffff:169.254.169.254", false),
        (&both, "idp.internal", "64:ff9b::169.254.169.254", false),
        (&both, "idp.internal", "64:ff9b::127.0.0.1", false),
        (&both, "idp.internal", "2002:7f00:1::", false),
        (&both, "idp.internal", "::ffff:0:127.0.0.1", false),
        (&both, "idp.internal", "2001::1", false),
        (&both, "idp.internal", "::127.0.0.1", false),
        (&both, "idp.internal", "fe80::1", false),
        (&both, "idp.internal", "0.0.0.0", false),
        (&both, "idp.internal", "::", false),
        (&both, "idp.internal", "255.255.255.255", false),
        (&both, "idp.internal", "ff02::1", false),
    ] {
        assert_eq!(guard.allows(host, address.parse().unwrap()), expected, "{host} {address} {guard:?}");
    }
}

#[test]
fn c2_urls_are_checked_in_every_form_of_an_address() {
    let (none, listed, open) = (guard(&[], false), guard(&["10.0.0.1"], true), guard(&[], true));
    for (guard, url, expected) in [
        (&none, "https://acme.example/", Ok(())),
        (&none, "https://8.8.8.8/", Ok(())),
        (&none, "https://127.0.0.1/", Err(GuardError::Address)),
        (&none, "https://0x7f.1/", Err(GuardError::Address)),
        (&none, "https://2130706433/", Err(GuardError::Address)),
        (&none, "https://0177.0.0.1/", Err(GuardError::Address)),
        (&none, "https://127.1/", Err(GuardError::Address)),
        (&none, "https://0/", Err(GuardError::Address)),
        (&none, "https://%31%32%37.0.0.1/", Err(GuardError::Address)),
        (&none, "https://１２７.0.0.1/", Err(GuardError::Address)),
        (&none, "https://127.0.0.1./", Err(GuardError::Address)),
        (&none, "https://[::1]/", Err(GuardError::Address)),
        (&none, "https://[::ffff:127.0.0.1]/", Err(GuardError::Address)),
        (&none, "https://[::ffff:a9fe:a9fe]/", Err(GuardError::Address)),
        (&none, "https://[64:ff9b::7f00:1]/", Err(GuardError::Address)),
        (&none, "https://[2002:7f00:1::]/", Err(GuardError::Address)),
        (&none, "https://169.254.169.254/", Err(GuardError::Address)),
        (&none, "https://u@acme.example/", Err(GuardError::Form)),
        (&none, "https://:p@acme.example/", Err(GuardError::Form)),
        (&none, "data:text/plain,x", Err(GuardError::Form)),
        (&none, "ftp://acme.example/", Err(GuardError::Scheme)),
        (&none, "http://acme.example/", Err(GuardError::Scheme)),
        (&none, "http://127.0.0.1/", Err(GuardError::Scheme)),
        (&open, "http://127.0.0.1:8080/", Ok(())),
        (&open, "http://localhost/", Ok(())),
        (&open, "http://[::1]/", Ok(())),
        (&open, "http://acme.example/", Err(GuardError::Scheme)),
        (&open, "http://localhost.acme.example/", Err(GuardError::Scheme)),
        (&open, "ftp://localhost/", Err(GuardError::Scheme)),
        (&open, "https://10.0.0.1/", Err(GuardError::Address)),
        (&listed, "https://10.0.0.1/", Ok(())),
        (&listed, "http://10.0.0.1/", Err(GuardError::Scheme)),
        (&listed, "https://169.254.169.254/", Err(GuardError::Address)),
    ] {
        assert_eq!(guard.check_url(&Url::parse(url).unwrap()), expected, "{url} {guard:?}");
    }
}

#[test]
fn h17_isatap_and_metadata_services_are_never_allowed() {
    let listed = ["idp.internal", "metadata.google.internal", "168.63.129.16", "2a00:1450::5efe:10.0.0.1"];
    for guard in [guard(&[], false), guard(&listed, true)] {
        for address in [
            "2a00:1450::5efe:10.0.0.1",
            "2a00:1450::200:5efe:10.0.0.1",
            "2a00:1450:1:2:0:5efe:7f00:1",
            "2a00:1450::300:5efe:8.8.8.8",
            "fe80::5efe:10.0.0.1",
            "168.63.129.16",
            "::ffff:168.63.129.16",
            "100.100.100.200",
            "fd00:ec2::254",
            "fd20:ce::254",
        ] {
            for host in ["idp.internal", address] {
                assert!(!guard.allows(host, address.parse().unwrap()), "{host} {address} {guard:?}");
            }
        }
        for url in [
            "https://168.63.129.16/",
            "https://0xa83f8110/",
            "https://[2a00:1450::200:5efe:a00:1]/",
            "https://metadata.google.internal/",
            "https://METADATA.google.internal./",
            "https://metadata/",
            "https://instance-data.ec2.internal/latest",
        ] {
            assert!(guard.check_url(&Url::parse(url).unwrap()).is_err(), "{url} {guard:?}");
        }
        for address in ["168.63.129.15", "2a00:1450::1:5efe:0:1", "2a00:1450:0:5efe::1"] {
            assert!(guard.allows("acme.example", address.parse().unwrap()), "{address}");
        }
    }
}
