//! Classes of IP addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::Ipv6Net;

/// Metadata services of clouds outside the link-local networks. They hand credentials of the machine to any client on it.
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),   // Azure; a public address
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)), // Alibaba
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254)), // AWS
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254)), // Google
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x0042, 0, 0, 0, 0, 0, 0x0042)), // Scaleway
];

/// Returns true for addresses that no list may allow: those of no single host, link-local ones and others of cloud metadata
/// services, and forms that embed an IPv4 address.
pub(super) fn is_never_allowed(ip: IpAddr) -> bool {
    let is_special = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || embeds_v4(ip),
    };
    is_special || ip.is_unspecified() || ip.is_multicast() || METADATA.contains(&ip)
}

/// Returns the IPv4 address in a NAT64 address (RFC 6052 §2.2), if one of the prefixes has it: the network translates
/// such an address and connects to the IPv4 address. Prefixes have one of the lengths of [`NAT64_LENGTHS`].
pub(super) fn inside_nat64(ip: Ipv6Addr, prefixes: &[Ipv6Net]) -> Option<Ipv4Addr> {
    let prefix = prefixes.iter().find(|prefix| prefix.contains(&ip))?;
    // The address follows the prefix. The byte 8 is not a part of it, and must be zero.
    let octets = ip.octets();
    let start = usize::from(prefix.prefix_len() / 8);
    let mut inside = octets.iter().enumerate().skip(start).filter(|(index, _)| *index != 8).map(|(_, octet)| *octet);
    let inside = [inside.next()?, inside.next()?, inside.next()?, inside.next()?];
    (start == 12 || octets.get(8) == Some(&0)).then(|| Ipv4Addr::from(inside))
}

/// Lengths of a NAT64 prefix.
const NAT64_LENGTHS: [u8; 6] = [32, 40, 48, 56, 64, 96];

/// Networks that no NAT64 can have, with their names: addresses in them never leave the machine or the link, or embed an IPv4
/// address in another way.
const NEVER_NAT64: [(Ipv6Net, &str); 6] = [
    (Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 96), "`::/96` has loopback and addresses that contain IPv4 ones"),
    (Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96), "`::ffff:0:0/96` is IPv4 itself"),
    (Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10), "`fe80::/10` is for one link"),
    (Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8), "`ff00::/8` is multicast"),
    (Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32), "`2001::/32` is Teredo"),
    (Ipv6Net::new_assert(Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16), "`2002::/16` is 6to4"),
];

/// A network that is no prefix of NAT64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotNat64 {
    #[error("must be IPv6 prefixes of 32, 40, 48, 56, 64 or 96 bits, such as `2001:db8:64::/96`")]
    Form,
    #[error("the bits 64 to 71 of a prefix must be zero (RFC 6052): ask the operator of the NAT64 for its prefix")]
    Reserved,
    #[error("no NAT64 has this prefix, because {0}: ask the operator of the NAT64 for its prefix, or leave it out")]
    Special(&'static str),
}

/// Parses a prefix of NAT64 (RFC 6052 §2.2).
pub(crate) fn nat64_prefix(text: &str) -> Result<Ipv6Net, NotNat64> {
    let prefix: Ipv6Net = text.parse().ok().ok_or(NotNat64::Form)?;
    if !NAT64_LENGTHS.contains(&prefix.prefix_len()) {
        return Err(NotNat64::Form);
    }
    let prefix = prefix.trunc();
    let overlaps = |network: &Ipv6Net| network.contains(&prefix) || prefix.contains(network);
    if let Some((_, why)) = NEVER_NAT64.iter().find(|(network, _)| overlaps(network)) {
        return Err(NotNat64::Special(why));
    }
    if prefix.network().octets().get(8) != Some(&0) {
        return Err(NotNat64::Reserved);
    }
    Ok(prefix)
}

/// The prefix of NAT64 that needs no setting (RFC 6052 §2.1).
pub(super) const NAT64: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);

/// Returns true for IPv4-compatible, translated (RFC 2765), local NAT64 (RFC 8215), Teredo, 6to4 and ISATAP addresses.
/// IPv4-mapped addresses and those of known NAT64 prefixes are not among them: callers convert those to IPv4 first.
fn embeds_v4(ip: Ipv6Addr) -> bool {
    match ip.segments() {
        [0, 0, 0, 0, 0 | 0xffff, 0, ..] | [0x0064, 0xff9b, ..] | [0x2001, 0, ..] | [0x2002, ..] => true,
        // ISATAP (RFC 5214 §6.1), under any prefix. The two bits say "global" and "group".
        [_, _, _, _, bits, 0x5efe, ..] => bits & !0x0300 == 0,
        _ => false,
    }
}

/// Names of cloud metadata services. Their addresses are refused as well, but a split-horizon resolver or a proxy may
/// reach the service under another address.
const METADATA_NAMES: [&str; 9] = [
    "metadata",
    "metadata.google.internal",
    "metadata.goog",
    "instance-data",
    "instance-data.ec2.internal",
    "metadata.azure.internal",
    "metadata.platformequinix.com",
    "metadata.packet.net",
    "metadata.tencentyun.com",
];

/// Returns true for the name of a cloud metadata service, in any case and without a trailing dot.
pub(super) fn is_metadata_name(host: &str) -> bool {
    METADATA_NAMES.iter().any(|name| name.eq_ignore_ascii_case(host))
}

/// Returns true for addresses of the public internet. An IPv6 address that embeds an IPv4 address is not public.
pub(super) fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let is_special = matches!(
        (a, b, c),
        (0 | 10 | 127 | 224..=255, _, _) // this network, private, loopback, multicast, reserved, broadcast
            | (100, 64..=127, _) // CGNAT (RFC 6598)
            | (169, 254, _) // link-local
            | (172, 16..=31, _)
            | (192, 168, _)
            | (192, 0, 0 | 2) // protocol assignments, documentation
            | (192, 88, 99) // 6to4 relays
            | (192, 31, 196) | (192, 52, 193) | (192, 175, 48) // AS112, AMT
            | (198, 18..=19, _) // benchmarking
            | (198, 51, 100)
            | (203, 0, 113)
    );
    !is_special
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [a, b, c, ..] = ip.segments();
    // Global unicast is 2000::/3. Mapped, compatible, NAT64, ULA, link-local and multicast addresses are outside.
    let is_special = match (a, b) {
        // Protocol assignments with Teredo and ORCHID, documentation (also RFC 9637), 6to4.
        (0x2001, 0..=0x01ff | 0x0db8) | (0x2002, _) | (0x3fff, 0..=0x0fff) => true,
        (0x2620, 0x004f) => c == 0x8000, // AS112
        _ => false,
    };
    (0x2000..=0x3fff).contains(&a) && !is_special
}
