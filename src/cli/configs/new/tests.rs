use serde_json::json;

use super::*;

fn options() -> Options {
    Options {
        provider: Integration::parse("acme").unwrap(),
        integration: None,
        name: None,
        client_id: None,
        client_secret_file: None,
        client_key_file: None,
        client_key_id: None,
        client_assertion_iss: None,
        redirect_url: None,
        scopes: None,
        vars: Vec::new(),
    }
}

#[test]
fn what_is_missing_is_asked_for_and_empty_answers_take_the_defaults() {
    let profile = json!({
        "app_url": "https://acme.example/apps", "redirect_url_field": "Callback", "setup": "Set more.",
        "config": { "scopes": "read" },
        "common_scopes": { "write": "Write things" },
    });
    let (input, mut output) = ("\n\n  my-id \n\n".as_bytes(), Vec::new());
    let mut dialog = Dialog { input, output: &mut output };
    let callback = Some("https://hub.example/cb");
    let config =
        options().ask(&profile, callback, Files { secret: Some(Secret::new("s")), key: None }, &mut dialog).unwrap();
    let expected = json!({ "integration_id": "acme", "provider": "acme", "client_id": "my-id", "client_secret": "s",
        "redirect_url": "https://hub.example/cb", "scopes": "read" });
    assert_eq!(Value::Object(config), expected);
    let output = String::from_utf8(output).unwrap();
    for shown in
        ["https://acme.example/apps", "Callback", "Set more.", "[https://hub.example/cb]", "write  Write things"]
    {
        assert!(output.contains(shown), "{output}");
    }
    assert_eq!(output.matches("Client id").count(), 2, "asked again: {output}");
}

#[test]
fn a_key_is_asked_for_where_the_profile_wants_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key.pem");
    std::fs::write(&file, "PEM\nkey\n").unwrap();
    let ask = |method: &str, input: String| {
        let (profile, mut output) = (json!({ "config": { "token_auth_method": method } }), Vec::new());
        let mut dialog = Dialog { input: input.as_bytes(), output: &mut output };
        let config = options().ask(&profile, Some("https://hub.example/cb"), Files::default(), &mut dialog).unwrap();
        (Value::Object(config), String::from_utf8(output).unwrap())
    };
    let key = file.display();
    let (config, _) = ask("signed_client_secret", format!("\nid\nteam\nkid-1\n{key}\n\n"));
    let expected = json!({ "integration_id": "acme", "provider": "acme", "client_id": "id", "client_secret": "",
        "client_key": "PEM\nkey\n", "client_key_id": "kid-1", "client_assertion_iss": "team",
        "redirect_url": "https://hub.example/cb", "scopes": "" });
    assert_eq!(config, expected);
    let (config, output) = ask("private_key_jwt", format!("\nid\n\n{key}\n\n"));
    assert_eq!((&config["client_key"], config.get("client_key_id")), (&json!("PEM\nkey\n"), None));
    assert!(!output.contains("Issuer"), "{output}");
    let (config, output) = ask("none", "\nid\n\n".to_owned());
    assert_eq!((config["client_secret"].as_str(), config.get("client_key")), (Some(""), None));
    assert!(!output.contains("Common scopes"), "there are none: {output}");
}

#[test]
fn an_empty_secret_is_asked_for_again_where_the_profile_sends_one() {
    let profile = |field: &str, method: &str| json!({ "config": { field: method } });
    for (profile, is_needed) in [
        (json!({}), false),
        (profile("token_auth_method", "none"), false),
        (profile("token_auth_method", "client_secret_basic"), true),
        (profile("refresh_auth_method", "client_secret_post"), true),
    ] {
        let mut typed = ["", " ", "secret "].into_iter();
        let is_found = Proof::needs_secret(&profile);
        let secret = typed_secret(is_found, |_| None, || Ok(typed.next().unwrap().to_owned())).unwrap();
        assert_eq!((is_found, secret.expose()), (is_needed, if is_needed { "secret" } else { "" }), "{profile}");
    }
}

#[test]
fn without_a_terminal_the_error_names_the_flags() {
    let missing = |options: Options, method: &str, callback: Option<&str>| {
        let profile = json!({ "config": { "token_auth_method": method } });
        options.without_asking(&profile, callback.map(str::to_owned), Files::default()).unwrap_err().to_string()
    };
    let error = missing(options(), "client_secret_basic", None);
    assert!(error.contains("pass --client-id and --client-secret-file and --redirect-url, or "), "{error}");
    assert!(error.contains("`tokenbus config put`"), "{error}");
    let given = || Options { client_id: Some("id".to_owned()), ..options() };
    let callback = Some("https://hub.example/cb");
    assert!(missing(given(), "client_secret_post", callback).contains("pass --client-secret-file, or "));
    let error = missing(given(), "signed_client_secret", callback);
    assert!(error.contains("pass --client-key-file and --client-assertion-iss, or "), "{error}");
    let public = json!({ "config": { "token_auth_method": "none" } });
    assert!(given().without_asking(&public, callback.map(str::to_owned), Files::default()).is_ok());
}

/// A profile with a variable that each config sets itself.
fn asking() -> Value {
    json!({
        "ask": { "host": "Host of your server" },
        "config": {
            "name": "Acme", "auth_url": "https://${host}/authorize", "token_url": "https://${host}/token",
            "variables": { "host": { "values": ["host.acme.example"], "default": "host.acme.example", "metadata": true } },
        },
    })
}

#[test]
fn each_answer_is_judged_at_once_and_asked_for_again_with_the_reason() {
    let files = Files { secret: Some(Secret::new("s")), key: None };
    let input = "http://hub.example/cb\nhttps://hub.example/cb?code=1\nhttps://hub.example/cb\na\u{200b}\nid\n\
                 host.acme.example\n<host>\nlogin.acme.example\na,a\na,b\n";
    let mut output = Vec::new();
    let mut dialog = Dialog { input: input.as_bytes(), output: &mut output };
    let config = options().ask(&asking(), None, files, &mut dialog).unwrap();
    let variables = json!({ "host": { "values": ["login.acme.example"], "default": "login.acme.example",
        "metadata": true } });
    let expected = json!({ "integration_id": "acme", "provider": "acme", "client_id": "id", "client_secret": "s",
        "redirect_url": "https://hub.example/cb", "scopes": "a,b", "variables": variables });
    assert_eq!(Value::Object(config), expected);
    let output = String::from_utf8(output).unwrap();
    let mut rest = output.as_str();
    for shown in [
        "redirect_url must be a URL with https",
        "redirect_url must be a URL without the parameters",
        "client_id must be a text without control characters",
        "this is the example of the profile",
        "auth_url must be ",
        "scopes must be a list that names each scope once",
    ] {
        let (_, after) = rest.split_once(shown).unwrap_or_else(|| panic!("{shown}: {output}"));
        rest = after;
    }
    let mut dialog = Dialog { input: "".as_bytes(), output: &mut Vec::new() };
    let wrong = Options { redirect_url: Some("ftp://hub.example".to_owned()), ..options() };
    let error = wrong.ask(&asking(), None, Files::default(), &mut dialog).unwrap_err().to_string();
    assert!(error.starts_with("Redirect URL: redirect_url must be"), "a flag is not asked for again: {error}");
}

#[test]
fn a_typed_secret_that_no_request_can_send_is_asked_for_again() {
    let profile = json!({ "config": { "name": "a", "auth_url": "https://acme.example/a", "token_url": "https://acme.example/t" } });
    let draft = Draft::new(&profile, &Integration::parse("acme").unwrap());
    let mut typed = ["a\u{200b}b", "good"].into_iter();
    let judge = |secret: &str| draft.problem("client_secret", secret);
    let secret = typed_secret(true, judge, || Ok(typed.next().unwrap().to_owned())).unwrap();
    assert_eq!(secret.expose(), "good");
    assert!(draft.problem("client_key", "no key").is_some());
}

#[test]
fn secrets_that_the_profile_hides_are_no_problem_of_an_answer() {
    let mut profile = asking();
    profile["config"]["token_headers"] = json!({ "X-Key": "set" });
    let draft = Draft::new(&profile, &Integration::parse("acme").unwrap());
    assert_eq!(draft.problem("redirect_url", "https://hub.example/cb"), None);
    assert_eq!(draft.problem_of_variable("host", "login.acme.example"), None);
}

#[test]
fn flags_set_the_variables_that_the_profile_asks_for() {
    let given = |vars: &[&str]| {
        let vars = vars.iter().map(|&text| text.to_owned()).collect();
        let options = Options { client_id: Some("id".to_owned()), vars, ..options() };
        let files = Files { secret: Some(Secret::new("s")), key: None };
        options.without_asking(&asking(), Some("https://hub.example/cb".to_owned()), files)
    };
    assert!(given(&[]).unwrap_err().to_string().contains("pass --var host=<value>, or "));
    for (var, problem) in [
        ("host=host.acme.example", "--var host: this is the example of the profile"),
        ("host=<host>", "--var host: auth_url must be "),
        ("tenant=a", "--var tenant: the profile asks only for host"),
    ] {
        let error = given(&[var]).unwrap_err().to_string();
        assert!(error.starts_with(problem), "{error}");
    }
    assert_eq!(given(&["host=login.acme.example"]).unwrap()["variables"]["host"]["default"], "login.acme.example");
}
