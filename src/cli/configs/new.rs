//! `config new`: a config from a provider's profile. Asks for what the flags leave out.

use std::io::{BufRead, IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Map, Value};
use url::Url;

use super::dialog::Dialog;
use crate::call::CALLBACK_PATH;
use crate::cli::input;
use crate::cli::print::{note, plain};
use crate::secret::Secret;
use crate::subject::Integration;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Id of the provider's profile, from `tokenbus providers list`.
    #[arg(value_parser = provider)]
    pub(super) provider: Integration,
    /// Id of the integration; default: the provider's.
    #[arg(long, value_name = "ID")]
    pub(super) integration: Option<Integration>,
    /// Name that people see; default: the provider's.
    #[arg(long)]
    name: Option<String>,
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// File with the client secret; `-` reads standard input. No flag takes the secret itself: other users of this machine
    /// can see arguments.
    #[arg(long, value_name = "FILE")]
    client_secret_file: Option<PathBuf>,
    /// File with the app's private key in PEM, for providers that want a signed client secret or assertion; `-` reads
    /// standard input.
    #[arg(long, value_name = "FILE")]
    client_key_file: Option<PathBuf>,
    /// The private key's id (`kid`) at the provider.
    #[arg(long, value_name = "ID")]
    client_key_id: Option<String>,
    /// Issuer of a signed client secret, such as the id of the developer's team.
    #[arg(long, value_name = "ISSUER")]
    client_assertion_iss: Option<String>,
    /// The app's redirect URL; default: the callback at `http.public_url`.
    #[arg(long, value_name = "URL")]
    redirect_url: Option<String>,
    /// Comma-separated scopes; default: the profile's.
    #[arg(long)]
    scopes: Option<String>,
}

fn provider(text: &str) -> Result<Integration, &'static str> {
    Integration::parse(text).ok().ok_or(
        "provider must be the id of a profile; `tokenbus providers list --search TEXT` finds profiles by id or name",
    )
}

/// Credential of the app beside its client id, by the profile's `token_auth_method`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    Secret,
    /// A private key that signs assertions.
    Key,
    /// A private key that signs the client secret, which names an issuer.
    SignedSecret,
    Nothing,
}

impl Proof {
    fn of(profile: &Value) -> Self {
        match profile.pointer("/config/token_auth_method").and_then(Value::as_str) {
            Some("private_key_jwt") => Self::Key,
            Some("signed_client_secret") => Self::SignedSecret,
            Some("none") => Self::Nothing,
            Some(_) | None => Self::Secret,
        }
    }

    /// Returns true if the profile names a method that sends the secret. Otherwise the client may be a public one.
    fn needs_secret(profile: &Value) -> bool {
        ["token_auth_method", "refresh_auth_method", "revocation_auth_method"].into_iter().any(|field| {
            let method = profile.get("config").and_then(|config| config.get(field)).and_then(Value::as_str);
            method.is_some_and(|method| method.starts_with("client_secret_"))
        })
    }

    fn has_key(self) -> bool {
        matches!(self, Self::Key | Self::SignedSecret)
    }
}

/// Contents of the files.
#[derive(Default)]
struct Files {
    secret: Option<Secret>,
    key: Option<Secret>,
}

struct Answers {
    client_id: String,
    /// Empty for a client without one.
    secret: Secret,
    key: Option<Secret>,
    key_id: Option<String>,
    assertion_iss: Option<String>,
    redirect_url: String,
    /// `None` for those of the profile.
    scopes: Option<String>,
}

impl Options {
    /// Returns the config's JSON. Asks on the terminal if there is one.
    pub(super) fn complete(self, profile: &Value, public_url: Option<&Url>) -> anyhow::Result<Secret> {
        let callback = public_url.map(|url| format!("{}{CALLBACK_PATH}", url.as_str().trim_end_matches('/')));
        let files = Files {
            secret: self.client_secret_file.as_deref().map(input::read_secret).transpose()?,
            key: self.client_key_file.as_deref().map(input::read).transpose()?,
        };
        let config = if std::io::stdin().is_terminal() {
            let mut dialog = Dialog { input: std::io::stdin().lock(), output: std::io::stderr() };
            self.ask(profile, callback.as_deref(), files, &mut dialog)?
        } else {
            if let Some(setup) = profile.get("setup").and_then(Value::as_str) {
                note(setup);
            }
            self.without_asking(profile, callback, files)?
        };
        Ok(Secret::new(Value::Object(config).to_string()))
    }

    fn without_asking(
        mut self,
        profile: &Value,
        callback: Option<String>,
        files: Files,
    ) -> anyhow::Result<Map<String, Value>> {
        let proof = Proof::of(profile);
        let redirect_url = self.redirect_url.take().or(callback);
        let needed = [
            ("--client-id", self.client_id.is_none()),
            ("--client-secret-file", proof == Proof::Secret && files.secret.is_none()),
            ("--client-key-file", proof.has_key() && files.key.is_none()),
            ("--client-assertion-iss", proof == Proof::SignedSecret && self.client_assertion_iss.is_none()),
            ("--redirect-url", redirect_url.is_none()),
        ];
        let missing: Vec<&str> =
            needed.into_iter().filter(|(_, is_missing)| *is_missing).map(|(flag, _)| flag).collect();
        if !missing.is_empty() {
            bail!(
                "standard input is no terminal, so nothing can be asked for: pass {}, or write the config as JSON and use \
                 `tokenbus config put`",
                missing.join(" and ")
            );
        }
        let answers = Answers {
            client_id: self.client_id.take().unwrap_or_default(),
            secret: files.secret.unwrap_or_default(),
            key: files.key,
            key_id: self.client_key_id.take(),
            assertion_iss: self.client_assertion_iss.take(),
            redirect_url: redirect_url.unwrap_or_default(),
            scopes: self.scopes.take(),
        };
        Ok(self.config(answers))
    }

    fn ask<R: BufRead, W: Write>(
        mut self,
        profile: &Value,
        callback: Option<&str>,
        files: Files,
        dialog: &mut Dialog<R, W>,
    ) -> anyhow::Result<Map<String, Value>> {
        let text = |field| profile.get(field).and_then(Value::as_str);
        if let Some(page) = text("app_url") {
            dialog.tell(&format!("Register an app at {page}"))?;
        }
        if let Some(field) = text("redirect_url_field") {
            dialog.tell(&format!("Its redirect URL goes to: {field}"))?;
        }
        if let Some(setup) = text("setup") {
            dialog.tell(setup)?;
        }
        let redirect_url = dialog.answer(self.redirect_url.take(), "Redirect URL", callback)?;
        let client_id = dialog.answer(self.client_id.take(), "Client id", None)?;
        let proof = Proof::of(profile);
        let secret = match files.secret {
            Some(secret) => secret,
            // Typed without echo.
            None if proof == Proof::Secret => {
                typed_secret(Proof::needs_secret(profile), || rpassword::prompt_password("Client secret: "))?
            }
            None => Secret::default(),
        };
        let (mut key, mut key_id, mut assertion_iss) =
            (files.key, self.client_key_id.take(), self.client_assertion_iss.take());
        if proof.has_key() {
            if key.is_none() {
                let file = dialog.answer(None, "File with the app's private key (PEM)", None)?;
                key = Some(input::read_file(Path::new(&file))?);
            }
            key_id = Some(dialog.answer(key_id, "Id of this key at the provider, empty for none", Some(""))?);
        }
        if proof == Proof::SignedSecret {
            let question = "Issuer of the client secret, such as the id of your team";
            assertion_iss = Some(dialog.answer(assertion_iss, question, None)?);
        }
        let scopes = self.ask_for_scopes(profile, dialog)?;
        let key_id = key_id.filter(|id| !id.is_empty());
        Ok(self.config(Answers { client_id, secret, key, key_id, assertion_iss, redirect_url, scopes: Some(scopes) }))
    }

    fn ask_for_scopes<R: BufRead, W: Write>(
        &mut self,
        profile: &Value,
        dialog: &mut Dialog<R, W>,
    ) -> anyhow::Result<String> {
        let of_profile = profile.pointer("/config/scopes").map(plain).unwrap_or_default();
        let common = profile.get("common_scopes").and_then(Value::as_object).filter(|scopes| !scopes.is_empty());
        if let (None, Some(common)) = (&self.scopes, common) {
            dialog.tell("Common scopes:")?;
            for (scope, meaning) in common {
                dialog.tell(&format!("  {scope}  {}", plain(meaning)))?;
            }
        }
        dialog.answer(self.scopes.take(), "Scopes, comma-separated", Some(&of_profile))
    }

    fn config(self, answers: Answers) -> Map<String, Value> {
        let Answers { client_id, secret, key, key_id, assertion_iss, redirect_url, scopes } = answers;
        let id = self.integration.unwrap_or_else(|| self.provider.clone());
        let fields = [
            ("integration_id", Some(id.as_str().to_owned())),
            ("provider", Some(self.provider.as_str().to_owned())),
            ("name", self.name),
            ("client_id", Some(client_id)),
            ("client_secret", Some(secret.expose().to_owned())),
            ("client_key", key.map(|key| key.expose().to_owned())),
            ("client_key_id", key_id),
            ("client_assertion_iss", assertion_iss),
            ("redirect_url", Some(redirect_url)),
            ("scopes", scopes),
        ];
        let present = |(name, value): (&str, Option<String>)| Some((name.to_owned(), Value::from(value?)));
        fields.into_iter().filter_map(present).collect()
    }
}

/// Returns the secret that a person types. Asks until there is one, unless the client may be a public one.
fn typed_secret(is_needed: bool, mut ask: impl FnMut() -> std::io::Result<String>) -> anyhow::Result<Secret> {
    loop {
        let typed = ask().context("cannot read the secret")?;
        // A copied secret often has a line break or a blank at its end.
        let secret = typed.trim();
        if !secret.is_empty() || !is_needed {
            return Ok(Secret::new(secret));
        }
    }
}

#[cfg(test)]
mod tests {
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
        let config = options()
            .ask(&profile, callback, Files { secret: Some(Secret::new("s")), key: None }, &mut dialog)
            .unwrap();
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
            let config =
                options().ask(&profile, Some("https://hub.example/cb"), Files::default(), &mut dialog).unwrap();
            (Value::Object(config), String::from_utf8(output).unwrap())
        };
        let key = file.display();
        let (config, _) = ask("signed_client_secret", format!("\nid\n{key}\nkid-1\nteam\n\n"));
        let expected = json!({ "integration_id": "acme", "provider": "acme", "client_id": "id", "client_secret": "",
            "client_key": "PEM\nkey\n", "client_key_id": "kid-1", "client_assertion_iss": "team",
            "redirect_url": "https://hub.example/cb", "scopes": "" });
        assert_eq!(config, expected);
        let (config, output) = ask("private_key_jwt", format!("\nid\n{key}\n\n\n"));
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
            let secret = typed_secret(is_found, || Ok(typed.next().unwrap().to_owned())).unwrap();
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
}
