//! TLS to NATS, with the program itself: errors of TLS appear only on a TLS connection.

use std::path::Path;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::support::child::Running;
use crate::support::nats::{binary, ports};
use crate::support::tokenbus::{PROGRAM, small_streams};
use crate::support::wait::PATIENCE;

/// A server that accepts only TLS with client certificates.
struct Server {
    folder: TempDir,
    address: String,
    _process: Running,
}

impl Server {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let ca = authority(folder.path(), "ca");
        authority(folder.path(), "other_ca");
        issue(folder.path(), &ca, "server", ExtendedKeyUsagePurpose::ServerAuth);
        issue(folder.path(), &ca, "client", ExtendedKeyUsagePurpose::ClientAuth);
        let stranger = authority(folder.path(), "stranger_ca");
        issue(folder.path(), &stranger, "stranger", ExtendedKeyUsagePurpose::ClientAuth);
        let config = folder.path().join("server.conf");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let text = format!(
            "host: 127.0.0.1\njetstream {{ store_dir: \"{}\" }}\ntls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", verify: true }}\n",
            path("store"),
            path("server.pem"),
            path("server.key"),
            path("ca.pem"),
        );
        std::fs::write(&config, text).expect("the folder can be written");
        let process = Running::start(Path::new(binary()), &folder.path().join("log"), |command| {
            command.arg("-c").arg(&config).args(["-p", "-1", "--ports_file_dir"]).arg(folder.path());
        });
        let url = ports(folder.path()).await;
        let (_, address) = url.split_once("://").expect("a URL");
        Self { address: address.to_owned(), folder, _process: process }
    }

    /// Environment of a process that connects with these files, named within the folder.
    fn settings(&self, scheme: &str, files: &[(&str, &str)]) -> Vec<(String, String)> {
        let path = |file: &str| self.folder.path().join(file).display().to_string();
        let mut settings = vec![("TOKENBUS_NATS__URL".to_owned(), format!("{scheme}://{}", self.address))];
        settings.extend(small_streams());
        settings.extend(files.iter().map(|(name, file)| (format!("TOKENBUS_NATS__{name}"), path(file))));
        settings
    }
}

pub(crate) fn authority(folder: &Path, name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let key = KeyPair::generate().expect("a key");
    let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
    std::fs::write(folder.join(format!("{name}.pem")), issuer.pem()).expect("the folder can be written");
    issuer
}

pub(crate) fn issue(folder: &Path, ca: &CertifiedIssuer<'_, KeyPair>, name: &str, usage: ExtendedKeyUsagePurpose) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
    params.extended_key_usages = vec![usage];
    let certificate = params.signed_by(&key, ca).expect("a certificate");
    std::fs::write(folder.join(format!("{name}.pem")), certificate.pem()).expect("the folder can be written");
    std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).expect("the folder can be written");
}

const CLIENT: [(&str, &str); 2] = [("CLIENT_CERT", "client.pem"), ("CLIENT_KEY", "client.key")];

#[tokio::test]
async fn the_program_connects_to_the_bus_with_tls_and_a_client_certificate() {
    let server = Server::start().await;
    let [cert, key] = CLIENT;
    for (scheme, files, expected) in [
        ("tls", &[("CA", "ca.pem"), cert, key][..], Ok("all streams and buckets are set up")),
        ("nats", &[("CA", "ca.pem"), cert, key], Ok("all streams and buckets are set up")),
        ("tls", &[("CA", "other_ca.pem"), cert, key], Err("invalid peer certificate: UnknownIssuer")),
        ("tls", &[cert, key], Err("invalid peer certificate: UnknownIssuer")),
        ("tls", &[("CA", "ca.pem")], Err("received fatal alert: CertificateRequired")),
        (
            "tls",
            &[("CA", "ca.pem"), ("CLIENT_CERT", "stranger.pem"), ("CLIENT_KEY", "stranger.key")],
            Err("received fatal alert: UnknownCA"),
        ),
        (
            "tls",
            &[("CA", "ca.pem"), cert, ("CLIENT_KEY", "server.key")],
            Err("`nats.client_cert` and `nats.client_key` do not match: "),
        ),
    ] {
        let output =
            Command::new(PROGRAM).arg("setup").envs(server.settings(scheme, files)).kill_on_drop(true).output();
        let output = timeout(PATIENCE, output).await.expect("it ends").expect("the program starts");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert_eq!(output.status.success(), expected.is_ok(), "{scheme} {files:?}: {said}");
        let (Ok(text) | Err(text)) = expected;
        assert!(said.contains(text), "{scheme} {files:?}: {said}");
    }
}

#[tokio::test]
async fn the_log_says_why_the_bus_cannot_be_reached() {
    let server = Server::start().await;
    let [cert, key] = CLIENT;
    for (files, expected) in
        [(&[("CA", "other_ca.pem"), cert, key][..], "UnknownIssuer"), (&[("CA", "ca.pem")], "CertificateRequired")]
    {
        let log = server.folder.path().join("edge.log");
        let _edge = Running::start(Path::new(PROGRAM), &log, |command| {
            command.envs(server.settings("tls", files)).env("TOKENBUS_HTTP__LISTEN", "127.0.0.1:0");
            command.args(["serve", "--role", "edge"]);
        });
        let text = || std::fs::read_to_string(&log).expect("a log");
        let logged = async {
            while !text().lines().any(|line| line.contains("no connection to NATS") && line.contains(expected)) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        assert!(timeout(PATIENCE, logged).await.is_ok(), "{expected} is not in\n{}", text());
    }
}
