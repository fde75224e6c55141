//! The dashboard and the alerts: they name metrics that exist, and the documentation has each alert.

use std::collections::BTreeSet;
use std::fs::read_to_string;
use std::io::Write as _;
use std::process::Command;

use regex::Regex;
use serde_json::Value;

use crate::support::root;
use crate::tidy::sources;

fn text_of(path: &str) -> String {
    read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The names of metrics as the program registers them, without prefix and unit.
fn registered() -> BTreeSet<String> {
    let call = Regex::new(r#"(?:register|encode_descriptor)\(\s*(?:registry,\s*)?"([a-z_]+)""#).expect("a pattern");
    let sources = sources("src").into_iter().filter(|(path, _)| !path.iter().any(|part| part == "tests"));
    let texts = sources.map(|(_, text)| text.split("#[cfg(test)]").next().unwrap_or_default().to_owned());
    texts.flat_map(|text| call.captures_iter(&text).map(|found| found[1].to_owned()).collect::<Vec<_>>()).collect()
}

#[test]
fn o19_dashboards_and_alerts_name_metrics_that_exist() {
    let known = registered();
    assert!(known.contains("refreshes") && known.contains("nats_connected"), "metrics are found: {known:?}");
    let metric = Regex::new("tokenbus_([a-z_]+)").expect("a pattern");
    for file in ["dashboards/tokenbus.json", "dashboards/alerts.yaml", "docs/operations.md"] {
        let text = text_of(file);
        let named: BTreeSet<&str> =
            metric.captures_iter(&text).filter_map(|found| Some(found.get(1)?.as_str())).collect();
        assert!(!named.is_empty(), "{file} names metrics");
        for name in named {
            let ends = ["", "_total", "_bucket", "_info"];
            let exists = ends.iter().any(|end| name.strip_suffix(end).is_some_and(|name| known.contains(name)));
            assert!(exists, "{file}: there is no tokenbus_{name}");
        }
    }
}

#[test]
fn o19_each_alert_has_its_line_in_the_documentation() {
    let (alerts, document) = (text_of("dashboards/alerts.yaml"), text_of("docs/operations.md"));
    let names: Vec<&str> =
        alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).map(str::trim).collect();
    assert!(names.len() > 10, "{names:?}");
    let documented: Vec<&str> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `Tokenbus")?.split_once('`'))
        .filter(|(_, rest)| rest.split('|').filter(|cell| !cell.trim().is_empty()).count() == 2)
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names.iter().map(|name| name.trim_start_matches("Tokenbus")).collect::<Vec<_>>(), documented);
}

#[test]
fn o19_the_dashboard_has_queries_for_its_variables() {
    let dashboard: Value = serde_json::from_str(&text_of("dashboards/tokenbus.json")).expect("the dashboard is JSON");
    let variables = dashboard["templating"]["list"].as_array().expect("it has variables");
    let names: Vec<&str> = variables.iter().filter_map(|variable| variable["name"].as_str()).collect();
    assert_eq!(names, ["datasource", "job", "integration"]);
    let panels = dashboard["panels"].as_array().expect("it has panels");
    let queries = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let queries: Vec<&str> = queries.filter_map(|target| target["expr"].as_str()).collect();
    assert!(queries.len() > 20 && queries.iter().all(|query| query.contains(r#"job=~"$job""#)), "{queries:?}");
}

#[test]
fn o19_promtool_accepts_the_alerts() {
    let checked = Command::new("promtool").args(["check", "rules"]).arg(root().join("dashboards/alerts.yaml")).output();
    match checked {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout)),
        // Straight to the terminal: the harness hides the output of a passing test.
        Err(_missing) => {
            let _ =
                writeln!(std::io::stderr(), "skipped: no promtool, so the expressions of the alerts were not checked");
        }
    }
}
