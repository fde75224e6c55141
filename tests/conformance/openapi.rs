//! The description at `/openapi.json` against the running gateway: schemathesis makes requests of it, good and bad, and
//! finds no server error and no undocumented answer. The checks are listed in `tests/openapi/schemathesis.toml`;
//! other tests check the meaning of calls.

use crate::parts::install;
use crate::scripted::{Provider, Scripted};
use crate::support::root;
use crate::support::tokenbus::Tokenbus;
use serde_json::json;
use std::io::Write;
use std::process::Stdio;
use tokio::process::Command;

/// The integration and connection in the description's examples.
const INTEGRATION: &str = "slack";
const CONNECTION: &str = "workspace1";

#[tokio::test]
async fn every_answer_is_a_documented_one() {
    let Some(schemathesis) = install::schemathesis() else { return };
    let provider = Provider::start(|number, _| Scripted::tokens(number)).await;
    let tokenbus = Tokenbus::start(&[]).await;
    connect(&tokenbus, &provider).await;

    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = Command::new(schemathesis);
    command.current_dir(folder.path()).env("NO_COLOR", "1").stdin(Stdio::null()).kill_on_drop(true);
    command.arg("--config-file").arg(root().join("tests/openapi/schemathesis.toml"));
    command.arg("run").arg(tokenbus.endpoint("openapi.json").as_str()).args(["--warnings", "off"]);
    command.arg("--header").arg(format!("X-Api-Key: {}", tokenbus.admin_key));
    let output = command.output().await.expect("schemathesis starts");
    let printed = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{errors}", shortened(&printed));
    let counted = counted(&printed).unwrap_or_else(|| panic!("no count of requests in {printed}"));
    // Straight to the terminal: the harness hides the output of a passing test.
    let _ = writeln!(std::io::stderr(), "schemathesis: {counted}, nothing undocumented");
}

/// A connection with the names in the description's examples.
async fn connect(tokenbus: &Tokenbus, provider: &Provider) {
    let config = json!({
        "integration_id": INTEGRATION, "name": "Slack", "scopes": "read", "client_id": "client", "client_secret": "s",
        "auth_url": format!("{}/authorize", provider.url), "token_url": format!("{}/token", provider.url),
        "redirect_url": tokenbus.callback(),
    });
    tokenbus.configure(&config).await;
    let login = tokenbus.login(INTEGRATION, CONNECTION).await;
    let (_, state) = login.query_pairs().find(|(name, _)| name == "state").expect("a login has a state");
    let mut callback = tokenbus.endpoint("hub/integrations/oauth-callback");
    callback.query_pairs_mut().append_pair("code", "c").append_pair("state", &state);
    let (status, body) = tokenbus.arrive(&callback).await;
    assert_eq!(status, 200, "{body}");
}

/// The output with long lines shortened in the middle: schemathesis repeats its requests in full.
fn shortened(printed: &str) -> String {
    let cut = |line: &str| line.chars().take(400).collect::<String>();
    printed.lines().map(cut).collect::<Vec<_>>().join("\n")
}

/// The report's line on the number of tried requests.
fn counted(printed: &str) -> Option<String> {
    let line = |begin: &str| printed.lines().map(str::trim).find_map(|line| line.strip_prefix(begin));
    let cases = printed.lines().map(str::trim).skip_while(|line| *line != "Test cases:").nth(1)?;
    Some(format!("{} operations, {cases}", line("Tested:")?.trim()))
}
