//! What operators install: units of systemd, manifests of Kubernetes, the list of dependencies. Each test prints that it is skipped
//! if its tool is missing.

use std::io::Write as _;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::root;
use crate::support::tokenbus::PROGRAM;

const DEPLOY: &str = "config/deploy";

/// Runs a tool. Returns `None`, and prints why, if it is not installed.
fn run(tool: &str, command: &mut Command) -> Option<Output> {
    match command.output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // Straight to the terminal: the harness hides the output of a passing test.
            let _ = writeln!(std::io::stderr(), "skipped: no {tool}, so a package was not checked");
            None
        }
        Err(error) => panic!("{tool}: {error}"),
    }
}

#[track_caller]
fn assert_success(output: &Output) {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&text));
}

fn text_of(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn o20_systemd_accepts_the_units_and_finds_little_exposure() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for role in ["edge", "worker"] {
        let unit = text_of(&format!("{DEPLOY}/tokenbus-{role}.service"));
        assert!(unit.contains(&format!("serve --role {role}\n")), "{unit}");
        // The program is not installed where the package puts it.
        let unit = unit.replace("/usr/bin/tokenbus", PROGRAM);
        let path = folder.path().join(format!("tokenbus-{role}.service"));
        std::fs::write(&path, unit).expect("the folder can be written");
        let mut verify = Command::new("systemd-analyze");
        let Some(verified) = run("systemd-analyze", verify.args(["verify", "--man=no"]).arg(&path)) else { return };
        assert_success(&verified);
        let mut security = Command::new("systemd-analyze");
        // Tenths of systemd's own measure, in which 0 is the least exposure.
        security.args(["security", "--offline=true", "--no-pager", "--threshold=15"]).arg(&path);
        assert_success(&security.output().expect("systemd-analyze starts"));
    }
}

#[test]
fn o20_the_debian_package_has_files_that_exist() {
    let manifest: toml::Table = text_of("Cargo.toml").parse().expect("it is TOML");
    let assets = manifest["package"]["metadata"]["deb"]["assets"].as_array().expect("the package has files");
    assert!(assets.len() > 4);
    for asset in assets {
        let source = asset[0].as_str().expect("a path");
        assert!(source.starts_with("target/release/") || root().join(source).exists(), "there is no {source}");
    }
}

#[test]
fn o20_kustomize_renders_hardened_pods_with_secrets_by_reference() {
    let folder = root().join(DEPLOY).join("kustomize");
    let Some(rendered) = run("kubectl", Command::new("kubectl").arg("kustomize").arg(folder)) else { return };
    assert_success(&rendered);
    let text = String::from_utf8(rendered.stdout).expect("manifests are text");
    let count = |part: &str| text.matches(part).count();
    for (part, expected) in [
        ("kind: Deployment\n", 2),
        ("kind: PodDisruptionBudget\n", 2),
        ("kind: NetworkPolicy\n", 2),
        ("readOnlyRootFilesystem: true", 2),
        ("runAsNonRoot: true", 2),
        ("automountServiceAccountToken: false", 4),
        ("livenessProbe:", 2),
        ("readinessProbe:", 2),
        ("kind: Secret\n", 0),
    ] {
        assert_eq!(count(part), expected, "{part} in {text}");
    }
}

/// `openapi` reads the settings and needs no bus.
#[test]
fn o20_the_shipped_settings_are_valid() {
    for file in ["kustomize/tokenbus.toml", "edge.toml", "worker.toml"] {
        let settings = root().join(DEPLOY).join(file);
        let output = Command::new(PROGRAM).arg("--config").arg(settings).arg("openapi").output();
        assert_success(&output.expect("the program starts"));
    }
}

#[test]
fn o20_the_sbom_lists_each_crate_with_its_licence() {
    if run("jq", Command::new("jq").arg("--version")).is_none() {
        return;
    }
    let output = Command::new(root().join(DEPLOY).join("sbom")).output().expect("bash runs it");
    assert_success(&output);
    let sbom: Value = serde_json::from_slice(&output.stdout).expect("an SBOM is JSON");
    assert_eq!((&sbom["bomFormat"], &sbom["metadata"]["component"]["name"]), (&"CycloneDX".into(), &"tokenbus".into()));
    let components = sbom["components"].as_array().expect("it has components");
    let has = |name: &str| components.iter().any(|component| component["name"] == name);
    assert!(has("async-nats") && has("rustls"), "{components:?}");
    assert!(!has("proptest") && !has("prost-build"), "crates for tests are in no program");
    for component in components {
        let licence = component["licenses"][0]["expression"].as_str().unwrap_or_default();
        assert!(!licence.is_empty() && !licence.contains('/'), "{component}");
    }
}
