//! What operators install: units of systemd, manifests of Kubernetes, an image, the list of dependencies and their licences. Each test
//! prints that it is skipped if its tool is missing.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Output};

use serde_json::{Value, json};

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
    let package = &manifest["package"]["metadata"]["deb"];
    let assets = package["assets"].as_array().expect("the package has files");
    assert!(assets.len() > 4);
    for asset in assets {
        let source = asset[0].as_str().expect("a path");
        assert!(source.starts_with("target/") || root().join(source).exists(), "there is no {source}");
    }
    let folder = root().join(package["maintainer-scripts"].as_str().expect("a folder"));
    let units = package["systemd-units"].as_array().expect("the package has units");
    assert_eq!(units.len(), 2);
    for unit in units {
        let name = unit["unit-name"].as_str().expect("a name");
        assert!(folder.join(format!("{name}.service")).exists(), "there is no unit {name}");
        // They need passwords first.
        assert_eq!((unit["enable"].as_bool(), unit["start"].as_bool()), (Some(false), Some(false)), "{name}");
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
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), text).expect("it can be written");
    let mut validate = Command::new("kubernetes-validate");
    let Some(validated) = run("kubernetes-validate", validate.arg("--strict").arg(file.path())) else { return };
    assert_success(&validated);
}

/// The image that needs no daemon. The program in it is not static here, so it is not run.
#[test]
fn o20_an_image_has_the_program_and_its_licences_alone_without_root() {
    if run("jq", Command::new("jq").arg("--version")).is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [program, licences, authorities] = ["program", "licences", "authorities"].map(|name| {
        let path = folder.path().join(name);
        std::fs::write(&path, name).expect("it can be written");
        path
    });
    let images = ["first", "second"].map(|name| {
        let image = folder.path().join(name);
        let mut command = Command::new(root().join(DEPLOY).join("image"));
        command.args([&program, &licences, &image]).env("SSL_CERT_FILE", &authorities);
        assert_success(&command.output().expect("bash runs it"));
        image
    });
    let bytes = images.each_ref().map(|image| std::fs::read(image).expect("an image"));
    assert_eq!(bytes[0], bytes[1], "the same input makes the same image");
    let member = |name: &str| {
        let output = Command::new("tar").arg("-xOf").arg(&images[0]).arg(name).output().expect("tar starts");
        assert_success(&output);
        output.stdout
    };
    let json = |name: &str| serde_json::from_slice::<Value>(&member(name)).expect("JSON");
    let manifest = json("manifest.json");
    let config = json(manifest[0]["Config"].as_str().expect("a name"));
    assert_eq!(manifest[0]["RepoTags"][0], concat!("tokenbus:", env!("CARGO_PKG_VERSION")));
    assert_eq!(
        (&config["config"]["User"], &config["config"]["Entrypoint"]),
        (&"65532:65532".into(), &json!(["/tokenbus"]))
    );
    std::fs::write(folder.path().join("layer.tar"), member("layer.tar")).expect("it can be written");
    let mut list = Command::new("tar");
    let listed = list.args(["-tf", "layer.tar"]).current_dir(folder.path()).output().expect("tar starts");
    let listed = String::from_utf8(listed.stdout).expect("names");
    let files: Vec<&str> = listed.lines().filter(|name| !name.ends_with('/')).collect();
    assert_eq!(files, ["tokenbus", "licences.txt", "etc/ssl/certs/ca-certificates.crt"]);
    // Both ways to an image agree.
    let containerfile = text_of(&format!("{DEPLOY}/Containerfile"));
    for part in ["USER 65532:65532", r#"ENTRYPOINT ["/tokenbus"]"#, r#"CMD ["serve", "--role", "edge"]"#] {
        assert!(containerfile.contains(part), "{part}");
    }
    assert_eq!(config["config"]["Cmd"], json!(["serve", "--role", "edge"]));
}

/// Cargo refuses a manifest whose targets are missing.
#[test]
fn o20_the_containerfile_copies_all_files_of_a_build_and_no_secrets() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let containerfile = text_of(&format!("{DEPLOY}/Containerfile"));
    let copies =
        containerfile.lines().filter_map(|line| line.strip_prefix("COPY ")).filter(|copy| !copy.starts_with("--"));
    for copy in copies {
        let (sources, target) = copy.rsplit_once(' ').expect("sources and a target");
        for source in sources.split(' ') {
            assert!(!source.starts_with('.'), "{source} may have passwords or earlier builds");
            let mut program = Command::new("cp");
            program.arg("-r").arg(root().join(source)).arg(folder.path().join(target));
            assert_success(&program.output().expect("cp starts"));
        }
    }
    let mut metadata = Command::new(env!("CARGO"));
    metadata.args(["metadata", "--no-deps", "--offline", "--format-version", "1"]).current_dir(folder.path());
    assert_success(&metadata.output().expect("cargo starts"));
    for included in ["build.rs", "config/default.toml", "config/error_codes.toml", "config/providers", "src/main.rs"] {
        assert!(folder.path().join(included).exists(), "{included}");
    }
}

/// The chart is not here, so only what it passes on is checked.
#[test]
fn o20_the_values_for_the_chart_of_nats_fit_the_shipped_configuration() {
    let (values, server) = (text_of(&format!("{DEPLOY}/nats-values.yaml")), text_of("nats/production/server.conf"));
    for part in ["max_connections: 20000", "sync_interval: always", "cipher: chachapoly", "verify: true"] {
        assert!(values.contains(part) && server.contains(part), "{part}");
    }
    for file in ["accounts.conf", "tenants.conf", "pings.conf"] {
        assert!(values.contains(&format!("--from-file=nats/{file}")), "{file}");
        assert!(root().join("nats").join(file).exists(), "{file}");
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
fn o20_the_shipped_settings_keep_refresh_tokens_with_the_workers_and_bind_logins() {
    let guards =
        ["member_scopes = [\"connections:read\", \"tokens:read\", \"connections:write\"]", "bind = \"browser\""];
    for file in [
        &format!("{DEPLOY}/kustomize/tokenbus.toml"),
        &format!("{DEPLOY}/worker.toml"),
        "nats/production/tokenbus.toml",
    ] {
        let settings = text_of(file);
        assert!(guards.iter().all(|guard| settings.lines().any(|line| line == *guard)), "{file}");
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
        let copyleft = ["GPL", "MPL", "EPL", "CDDL", "EUPL", "OSL"].into_iter().find(|name| licence.contains(name));
        assert_eq!(copyleft, None, "{component}");
    }
}

#[test]
fn o20_each_crate_has_its_licence_and_each_text_is_there_once() {
    if run("jq", Command::new("jq").arg("--version")).is_none() {
        return;
    }
    let output = Command::new(root().join(DEPLOY).join("licences")).output().expect("bash runs it");
    assert_success(&output);
    let text = String::from_utf8(output.stdout).expect("licences are text");
    let (list, texts) = text.split_once("\n==== ").expect("a list, then texts");
    for listed in ["tokenbus ", "async-nats ", "rustls ", "The standard library of Rust: MIT OR Apache-2.0"] {
        assert!(list.lines().any(|line| line.starts_with(listed)), "{listed} in {list}");
    }
    // Without its first line, which names the crates.
    let texts: Vec<&str> =
        texts.split("\n==== ").filter_map(|text| text.split_once('\n')).map(|(_, text)| text).collect();
    assert_eq!(texts.iter().collect::<BTreeSet<_>>().len(), texts.len(), "the same text twice");
    for notice in ["Copyright (c) 2014 Carl Lerche and other MIO contributors", "Copyright (c) 2019 Carl Lerche"] {
        assert!(texts.iter().any(|text| text.contains(notice)), "{notice}");
    }
}
