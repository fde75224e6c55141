//! The networks that a key may be used from.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Networks of one key. A key is read with each request, so the list is short.
const MAX_NETWORKS: usize = 64;

/// Networks, or none: then every address is allowed, and calls without an address, too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Networks(Vec<IpNet>);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NetworkError {
    #[error("each of `networks` must be an address or a network such as `10.0.0.0/8`")]
    Form,
    #[error("a key has at most {MAX_NETWORKS} networks")]
    TooMany,
}

impl Networks {
    pub(crate) fn parse(texts: &[String]) -> Result<Self, NetworkError> {
        if texts.len() > MAX_NETWORKS {
            return Err(NetworkError::TooMany);
        }
        texts.iter().map(|text| parse(text)).collect::<Result<_, _>>().map(Self)
    }

    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A client without an address, as the command line, is in no network.
    #[must_use]
    pub(crate) fn allow(&self, client: Option<IpAddr>) -> bool {
        let client = client.map(|client| client.to_canonical());
        self.is_empty() || client.is_some_and(|client| self.0.iter().any(|network| network.contains(&client)))
    }

    /// The first network with an address that `outer` does not allow.
    #[must_use]
    pub(crate) fn first_outside(&self, outer: &Self) -> Option<IpNet> {
        // Neighbours such as 10.0.0.0/25 and 10.0.0.128/25 hold 10.0.0.0/24 together.
        let outer_networks = IpNet::aggregate(&outer.0);
        let is_outside = |network: &&IpNet| !outer_networks.iter().any(|outer| outer.contains(*network));
        self.0.iter().find(is_outside).copied().filter(|_| !outer.is_empty())
    }
}

/// Parses an address or a network. An IPv4 address within IPv6 becomes IPv4, as clients' addresses do.
fn parse(text: &str) -> Result<IpNet, NetworkError> {
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(|address| IpNet::from(address.to_canonical())));
    let network: IpNet = network.ok().ok_or(NetworkError::Form)?;
    Ok(network.trunc())
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join(", "))
    }
}

impl Serialize for Networks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(ToString::to_string))
    }
}

impl<'de> Deserialize<'de> for Networks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&Vec::<String>::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Networks {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        Networks::parse(&texts).unwrap()
    }

    #[test]
    fn h8_networks_allow_their_own_addresses() {
        #[track_caller]
        fn check(of_key: &[&str], client: Option<&str>, expected: bool) {
            let client = client.map(|client| client.parse().unwrap());
            assert_eq!(networks(of_key).allow(client), expected, "{of_key:?} {client:?}");
        }
        check(&[], Some("192.0.2.1"), true);
        check(&[], None, true);
        check(&["10.0.0.0/8", "2001:db8::/32"], Some("10.255.0.1"), true);
        check(&["10.0.0.0/8", "2001:db8::/32"], Some("2001:db8::1"), true);
        check(&["10.0.0.0/8"], Some("11.0.0.1"), false);
        check(&["10.0.0.0/8"], Some("::ffff:10.0.0.1"), true);
        check(&["::ffff:10.0.0.1"], Some("10.0.0.1"), true);
        check(&["192.0.2.7"], Some("192.0.2.7"), true);
        check(&["192.0.2.7"], Some("192.0.2.8"), false);
        check(&["10.0.0.0/8"], None, false);
    }

    #[test]
    fn h8_no_network_reaches_beyond_those_of_the_maker() {
        #[track_caller]
        fn check(of_key: &[&str], of_maker: &[&str], expected: Option<&str>) {
            let outside = networks(of_key).first_outside(&networks(of_maker)).map(|network| network.to_string());
            assert_eq!(outside.as_deref(), expected, "{of_key:?} {of_maker:?}");
        }
        check(&["10.1.0.0/16"], &["10.0.0.0/8"], None);
        check(&["10.0.0.0/8"], &["10.1.0.0/16"], Some("10.0.0.0/8"));
        check(&["10.0.0.0/24"], &["10.0.0.0/25", "10.0.0.128/25"], None);
        check(&["0.0.0.0/0"], &["10.0.0.0/8"], Some("0.0.0.0/0"));
        check(&["::/0"], &["0.0.0.0/0"], Some("::/0"));
        check(&["10.0.0.0/8"], &[], None);
    }

    #[test]
    fn networks_have_a_form_and_a_number() {
        let wrong = Networks::parse(&["10.0.0.0/33".to_owned()]).unwrap_err();
        assert_eq!(wrong.to_string(), "each of `networks` must be an address or a network such as `10.0.0.0/8`");
        assert_eq!(Networks::parse(&vec!["10.0.0.1".to_owned(); 65]), Err(NetworkError::TooMany));
        assert_eq!(serde_json::json!(networks(&["10.1.2.3/8"])), serde_json::json!(["10.0.0.0/8"]));
    }
}
