//! `config new`: a config from a provider's profile. Asks for what the flags leave out.

use std::io::{BufRead, IsTerminal as _, Write};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Map, Value};
use url::Url;

use crate::call::CALLBACK_PATH;
use crate::cli::print::plain;
use crate::secret::Secret;
use crate::subject::Integration;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Id of the provider's profile, from `tokenbus providers list`.
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
    /// The app's redirect URL; default: the callback at `http.public_url`.
    #[arg(long, value_name = "URL")]
    redirect_url: Option<String>,
    /// Comma-separated scopes; default: the profile's.
    #[arg(long)]
    scopes: Option<String>,
}

impl Options {
    /// Returns the config's JSON. Asks on the terminal if there is one.
    pub(super) fn complete(self, profile: &Value, public_url: Option<&Url>) -> anyhow::Result<Secret> {
        let callback = public_url.map(|url| format!("{}{CALLBACK_PATH}", url.as_str().trim_end_matches('/')));
        let secret = self.client_secret_file.as_deref().map(super::read).transpose()?;
        let secret = secret.map(|text| Secret::new(text.expose().trim_end_matches(['\r', '\n']).to_owned()));
        let config = if std::io::stdin().is_terminal() {
            let mut dialog = Dialog { input: std::io::stdin().lock(), output: std::io::stderr() };
            self.ask(profile, callback.as_deref(), secret, &mut dialog)?
        } else {
            self.without_asking(callback, secret)?
        };
        Ok(Secret::new(Value::Object(config).to_string()))
    }

    fn without_asking(self, callback: Option<String>, secret: Option<Secret>) -> anyhow::Result<Map<String, Value>> {
        let redirect_url = self.redirect_url.clone().or(callback);
        let given = [
            ("--client-id", self.client_id.is_some()),
            ("--client-secret-file", secret.is_some()),
            ("--redirect-url", redirect_url.is_some()),
        ];
        let missing: Vec<&str> = given.into_iter().filter(|(_, is_given)| !is_given).map(|(flag, _)| flag).collect();
        let (Some(client_id), Some(secret), Some(redirect_url)) = (self.client_id.clone(), secret, redirect_url) else {
            bail!(
                "standard input is no terminal, so nothing can be asked for: pass {}, or write the config as JSON and use \
                 `tokenbus config put`",
                missing.join(" and ")
            );
        };
        let scopes = self.scopes.clone();
        Ok(self.config(Answers { client_id, secret, redirect_url, scopes }))
    }

    fn ask<R: BufRead, W: Write>(
        self,
        profile: &Value,
        callback: Option<&str>,
        secret: Option<Secret>,
        dialog: &mut Dialog<R, W>,
    ) -> anyhow::Result<Map<String, Value>> {
        let text = |field| profile.get(field).and_then(Value::as_str);
        if let Some(page) = text("app_url") {
            dialog.tell(&format!("Register an app at {page}"))?;
        }
        if let Some(field) = text("redirect_url_field") {
            dialog.tell(&format!("Its redirect URL goes to: {field}"))?;
        }
        let redirect_url = dialog.answer(self.redirect_url.clone(), "Redirect URL", callback)?;
        let client_id = dialog.answer(self.client_id.clone(), "Client id", None)?;
        let secret = match secret {
            Some(secret) => secret,
            // Typed without echo. Empty for a public client.
            None => Secret::new(rpassword::prompt_password("Client secret: ").context("cannot read the secret")?),
        };
        let of_profile = profile.pointer("/config/scopes").map(plain).unwrap_or_default();
        if self.scopes.is_none() {
            dialog.tell("Common scopes:")?;
            for (scope, meaning) in profile.get("common_scopes").and_then(Value::as_object).into_iter().flatten() {
                dialog.tell(&format!("  {scope}  {}", plain(meaning)))?;
            }
        }
        let scopes = dialog.answer(self.scopes.clone(), "Scopes, comma-separated", Some(&of_profile))?;
        Ok(self.config(Answers { client_id, secret, redirect_url, scopes: Some(scopes) }))
    }

    fn config(self, answers: Answers) -> Map<String, Value> {
        let Answers { client_id, secret, redirect_url, scopes } = answers;
        let id = self.integration.unwrap_or_else(|| self.provider.clone());
        let fields = [
            ("integration_id", Some(id.as_str().to_owned())),
            ("provider", Some(self.provider.as_str().to_owned())),
            ("name", self.name),
            ("client_id", Some(client_id)),
            ("client_secret", Some(secret.expose().to_owned())),
            ("redirect_url", Some(redirect_url)),
            ("scopes", scopes),
        ];
        let present = |(name, value): (&str, Option<String>)| Some((name.to_owned(), Value::from(value?)));
        fields.into_iter().filter_map(present).collect()
    }
}

struct Answers {
    client_id: String,
    secret: Secret,
    redirect_url: String,
    /// `None` for those of the profile.
    scopes: Option<String>,
}

/// Questions to a person.
struct Dialog<R, W> {
    input: R,
    output: W,
}

impl<R: BufRead, W: Write> Dialog<R, W> {
    fn tell(&mut self, line: &str) -> anyhow::Result<()> {
        Ok(writeln!(self.output, "{line}")?)
    }

    /// Returns what a flag has set, or asks until there is an answer. An empty answer takes the default.
    fn answer(&mut self, given: Option<String>, question: &str, default: Option<&str>) -> anyhow::Result<String> {
        if let Some(given) = given {
            return Ok(given);
        }
        loop {
            match default {
                Some(default) if !default.is_empty() => write!(self.output, "{question} [{default}]: ")?,
                Some(_) | None => write!(self.output, "{question}: ")?,
            }
            self.output.flush()?;
            let mut line = String::new();
            if self.input.read_line(&mut line)? == 0 {
                bail!("the input ended before the question was answered");
            }
            match (line.trim(), default) {
                ("", Some(default)) => return Ok(default.to_owned()),
                ("", None) => {}
                (answer, _) => return Ok(answer.to_owned()),
            }
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
            redirect_url: None,
            scopes: None,
        }
    }

    #[test]
    fn what_is_missing_is_asked_for_and_empty_answers_take_the_defaults() {
        let profile = json!({
            "app_url": "https://acme.example/apps", "redirect_url_field": "Callback", "config": { "scopes": "read" },
            "common_scopes": { "write": "Write things" },
        });
        let (input, mut output) = ("\n\n  my-id \n\n".as_bytes(), Vec::new());
        let mut dialog = Dialog { input, output: &mut output };
        let callback = Some("https://hub.example/cb");
        let config = options().ask(&profile, callback, Some(Secret::new("s".to_owned())), &mut dialog).unwrap();
        let expected = json!({ "integration_id": "acme", "provider": "acme", "client_id": "my-id", "client_secret": "s",
            "redirect_url": "https://hub.example/cb", "scopes": "read" });
        assert_eq!(Value::Object(config), expected);
        let output = String::from_utf8(output).unwrap();
        for shown in ["https://acme.example/apps", "Callback", "[https://hub.example/cb]", "write  Write things"] {
            assert!(output.contains(shown), "{output}");
        }
        assert_eq!(output.matches("Client id").count(), 2, "asked again: {output}");
    }

    #[test]
    fn without_a_terminal_the_error_names_the_flags() {
        let error = options().without_asking(None, None).unwrap_err().to_string();
        for flag in ["--client-id", "--client-secret-file", "--redirect-url", "`tokenbus config put`"] {
            assert!(error.contains(flag), "{error}");
        }
        let given = Options { client_id: Some("id".to_owned()), ..options() };
        let error = given.without_asking(Some("https://hub.example/cb".to_owned()), None).unwrap_err().to_string();
        assert!(error.contains("pass --client-secret-file,"), "{error}");
    }
}
