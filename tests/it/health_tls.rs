//! `tokenbus health` of a gateway with TLS.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::process::Command;
use url::Url;

use crate::support::child::Running;
use crate::support::nats::Nats;
use crate::support::tokenbus::{PROGRAM, settings};

/// Writes an authority's certificate, and a certificate of those names with its key.
fn write_certificates(folder: &Path, names: &[&str]) {
    let ca_key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).expect("a certificate").pem();
    let key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).expect("names");
    let leaf = leaf.signed_by(&key, &Issuer::new(params, ca_key)).expect("a certificate").pem();
    for (file, text) in [("ca.pem", ca), ("cert.pem", leaf), ("key.pem", key.serialize_pem())] {
        std::fs::write(folder.join(file), text).expect("it is written");
    }
}

/// An address that is not on this machine.
const ELSEWHERE: &str = "192.0.2.7";

#[tokio::test]
async fn o14_health_verifies_the_gateways_certificate() {
    let nats = Nats::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_certificates(folder.path(), &["hub.example", ELSEWHERE]);
    let path = |name: &str| folder.path().join(name).display().to_string();
    let mut all = settings(&nats, "edge", Path::new(""));
    all.insert("TOKENBUS_HTTP__TLS_CERT".to_owned(), path("cert.pem"));
    all.insert("TOKENBUS_HTTP__TLS_KEY".to_owned(), path("key.pem"));
    let mut gateway = Running::start(Path::new(PROGRAM), &folder.path().join("log"), |command| {
        command.envs(&all).args(["serve", "--role", "edge"]);
    });
    let url = gateway.line(|line| Url::parse(line.strip_prefix("listening on ")?).ok()).await;
    all.insert("TOKENBUS_HTTP__LISTEN".to_owned(), format!("127.0.0.1:{}", url.port().expect("a port")));
    let ca = path("ca.pem");
    for (public_url, ca, expected) in [
        ("https://hub.example", ca.as_str(), Ok("alive")),
        // Asks the process on this machine; its certificate may have another name.
        ("https://192.0.2.7", &ca, Ok("alive")),
        ("https://192.0.2.7:8443/hub", &ca, Ok("alive")),
        ("https://192.0.2.8", &ca, Err("http.public_url")),
        ("https://[2001:db8::7]", &ca, Err("http.public_url")),
        ("https://other.example", &ca, Err("http.public_url")),
        ("", &ca, Err("http.public_url")),
        ("https://hub.example", "", Err("http.health_ca")),
        ("https://hub.example", "/nowhere", Err("http.health_ca")),
    ] {
        let mut command = Command::new(PROGRAM);
        command.envs(&all).env("TOKENBUS_HTTP__PUBLIC_URL", public_url).env("TOKENBUS_HTTP__HEALTH_CA", ca);
        let output = command.arg("health").output().await.expect("the program starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        let (Ok(part) | Err(part)) = expected;
        assert!(output.status.success() == expected.is_ok() && text.contains(part), "{public_url} {ca}: {text}");
    }
}
