//! Section `http`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;
use url::Url;

use super::form;

/// Section `http`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Address on which the gateway listens.
    #[serde(deserialize_with = "form::address")]
    pub listen: SocketAddr,
    /// URL under which browsers reach the gateway.
    #[serde(deserialize_with = "form::optional_url")]
    pub public_url: Option<Url>,
    /// Separate address for metrics.
    #[serde(deserialize_with = "form::optional_address")]
    pub metrics_listen: Option<SocketAddr>,
    /// Id of this gateway in reply subjects, or empty for a random one.
    #[serde(deserialize_with = "form::edge_id")]
    pub edge_id: String,
    /// File with the certificate chain, or empty for plain HTTP.
    pub tls_cert: PathBuf,
    /// File with its private key.
    pub tls_key: PathBuf,
    /// File with the authorities of the gateway's certificate, for `tokenbus health`; or empty.
    pub health_ca: PathBuf,
    /// Allows listeners without TLS beyond loopback.
    pub allow_plaintext: bool,
    /// Proxies whose headers about the client's address are trusted.
    #[serde(deserialize_with = "form::networks")]
    pub trusted_proxies: Vec<IpNet>,
    /// Path below which an ingress serves the gateway, without a slash at its end; or empty.
    #[serde(deserialize_with = "form::base_path")]
    pub base_path: String,
    /// Trusted proxies begin each connection with a header of the PROXY protocol.
    pub proxy_protocol: bool,
    /// Most bytes of a request's headers.
    #[serde(deserialize_with = "form::header_bytes")]
    pub max_header: usize,
    /// Requests per second from one address.
    pub address_rate: u32,
    /// Requests that one address may make at once.
    pub address_burst: u32,
    /// Requests per second with one credential.
    pub credential_rate: u32,
    /// Requests that one credential may make at once.
    pub credential_burst: u32,
    /// Most open connections.
    #[serde(deserialize_with = "form::count")]
    pub max_connections: usize,
    /// Most open connections from one address.
    pub max_connections_per_address: usize,
    /// Longest time for a connection without a running request.
    #[serde(deserialize_with = "form::duration")]
    pub idle_timeout: Duration,
    /// Longest time that a caller waits for the reply to a command.
    #[serde(deserialize_with = "form::duration")]
    pub deadline: Duration,
    /// Time from a stop signal until the gateway accepts no more.
    #[serde(deserialize_with = "form::duration_or_zero")]
    pub shutdown_delay: Duration,
    /// Longest time that shutdown waits for requests in progress.
    #[serde(deserialize_with = "form::duration")]
    pub drain: Duration,
}

impl Http {
    /// URL at which browsers reach the gateway, with its base path.
    #[must_use]
    pub fn browser_url(&self) -> Option<Url> {
        self.public_url.clone().map(|url| self.below_base_path(url))
    }

    /// Adds the base path to a URL without a path.
    #[must_use]
    pub fn below_base_path(&self, mut url: Url) -> Url {
        if url.path() == "/" && !self.base_path.is_empty() {
            url.set_path(&self.base_path);
        }
        url
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;

    #[test]
    fn o13_a_public_url_without_a_path_gets_the_base_path() {
        #[track_caller]
        fn check(public_url: &str, base_path: &str, expected: &str) {
            let text = format!("[http]\npublic_url = \"{public_url}\"\nbase_path = \"{base_path}\"");
            assert_eq!(parse(&text).unwrap().http.browser_url().unwrap().as_str(), expected);
        }
        check("https://hub.example", "", "https://hub.example/");
        check("https://hub.example", "/bus", "https://hub.example/bus");
        check("https://hub.example/", "/bus/", "https://hub.example/bus");
        check("https://hub.example/outside", "/bus", "https://hub.example/outside");
        for wrong in ["bus", "/a//b", "/a?b", "/a b"] {
            assert!(parse(&format!("[http]\nbase_path = \"{wrong}\"")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn o13_the_limit_for_headers_is_bounded() {
        let limit =
            |text: &str| parse(&format!("[http]\nmax_header = {text}")).ok().map(|config| config.http.max_header);
        assert_eq!(limit("\"32KiB\""), Some(32 * 1024));
        assert_eq!(limit("8192"), Some(8192));
        assert_eq!((limit("100"), limit("\"2MiB\""), limit("-1")), (None, None, None));
    }
}
