use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::*;
use crate::integration::{UrlRules, parse_value};
use crate::subject::Integration;

#[test]
fn profiles_are_the_files_of_the_directory() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/config/providers");
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let files: BTreeSet<_> = files.collect();
    assert_eq!(files, names().map(|name| format!("{name}.toml")).collect());
}

#[test]
fn every_profile_makes_a_valid_config() {
    for (name, text) in PROFILES {
        let parsed = toml::from_str::<Value>(text);
        assert!(parsed.is_ok(), "{name}: {parsed:?}");
        let id = Integration::parse(name).unwrap();
        let body = json!({"provider": name, "integration_id": name, "client_id": "id", "client_secret": "secret",
            "scopes": "a,b", "redirect_url": "https://hub.example/cb"});
        let config = parse_value(apply(body).unwrap(), &id, UrlRules::default());
        let config = config.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(config.issued_at(&BTreeMap::new()).is_ok(), "{name} needs no variable without a default");
    }
}

#[test]
fn given_fields_win_and_unknown_profiles_are_named() {
    let body = json!({"provider": "google", "name": "Mine"});
    let merged = apply(body).unwrap();
    assert_eq!(
        (&merged["name"], &merged["token_url"]),
        (&json!("Mine"), &json!("https://oauth2.googleapis.com/token"))
    );
    let error = apply(json!({"provider": "canary"})).unwrap_err().to_string();
    assert!(error.contains("github") && !error.contains("canary"), "{error}");
    assert_eq!(apply(json!({"name": "x"})).unwrap(), json!({"name": "x"}));
    assert_eq!(profile("../default"), None);
}
