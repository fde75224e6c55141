//! `config new`: a config from a provider's profile. Asks for what the flags leave out, and judges each answer at once.

mod draft;

use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Map, Value};
use url::Url;

use self::draft::Draft;
use super::dialog::Dialog;
use crate::call::CALLBACK_PATH;
use crate::cli::input;
use crate::cli::print::{note, plain};
use crate::integration::printable;
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
    /// Value of a variable that the profile asks for, as `<name>=<value>`; repeatable.
    #[arg(long = "var", value_name = "NAME=VALUE")]
    vars: Vec<String>,
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
        let mut vars = self.take_vars(profile)?;
        let needed = [
            ("--client-id", self.client_id.is_none()),
            ("--client-secret-file", proof == Proof::Secret && files.secret.is_none()),
            ("--client-key-file", proof.has_key() && files.key.is_none()),
            ("--client-assertion-iss", proof == Proof::SignedSecret && self.client_assertion_iss.is_none()),
            ("--redirect-url", redirect_url.is_none()),
        ];
        let missing = needed.into_iter().filter(|(_, is_missing)| *is_missing).map(|(flag, _)| flag.to_owned());
        let open = asked(profile).filter(|(name, _)| !vars.contains_key(*name));
        let missing: Vec<String> = missing.chain(open.map(|(name, _)| format!("--var {name}=<value>"))).collect();
        if !missing.is_empty() {
            bail!(
                "standard input is no terminal, so nothing can be asked for: pass {}, or write the config as JSON and use \
                 `tokenbus config put`",
                missing.join(" and ")
            );
        }
        let mut draft = self.draft(profile);
        for (name, _) in asked(profile) {
            let value = vars.remove(name).unwrap_or_default();
            if let Some(problem) = draft.problem_of_variable(name, &value) {
                bail!("--var {name}: {problem}");
            }
            draft.set_variable(name, &value);
        }
        draft.set("client_id", self.client_id.take());
        draft.set("client_secret", Some(files.secret.unwrap_or_default().expose().to_owned()));
        draft.set("client_key", files.key.map(|key| key.expose().to_owned()));
        draft.set("client_key_id", self.client_key_id.take());
        draft.set("client_assertion_iss", self.client_assertion_iss.take());
        draft.set("redirect_url", redirect_url);
        draft.set("scopes", self.scopes.take());
        Ok(draft.fields())
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
        let mut draft = self.draft(profile);
        let mut answer = |draft: &mut Draft<'_>, field: &'static str, given, question, default| {
            let answer = dialog.answer(given, question, default, |answer| draft.problem(field, answer))?;
            draft.set(field, Some(answer).filter(|answer| !answer.is_empty()));
            anyhow::Ok(())
        };
        answer(&mut draft, "redirect_url", self.redirect_url.take(), "Redirect URL", callback)?;
        answer(&mut draft, "client_id", self.client_id.take(), "Client id", None)?;
        let proof = Proof::of(profile);
        if proof == Proof::SignedSecret {
            let question = "Issuer of the client secret, such as the id of your team";
            answer(&mut draft, "client_assertion_iss", self.client_assertion_iss.take(), question, None)?;
        }
        if proof.has_key() {
            let question = "Id of the app's private key at the provider, empty for none";
            answer(&mut draft, "client_key_id", self.client_key_id.take(), question, Some(""))?;
        }
        self.ask_for_variables(&mut draft, profile, dialog)?;
        ask_for_credential(&mut draft, profile, files, dialog)?;
        self.ask_for_scopes(&mut draft, profile, dialog)?;
        Ok(draft.fields())
    }

    /// Asks for the variables that only an admin can set.
    fn ask_for_variables<R: BufRead, W: Write>(
        &mut self,
        draft: &mut Draft<'_>,
        profile: &Value,
        dialog: &mut Dialog<R, W>,
    ) -> anyhow::Result<()> {
        let mut vars = self.take_vars(profile)?;
        for (name, question) in asked(profile) {
            let judge = |answer: &str| draft.problem_of_variable(name, answer);
            let value = dialog.answer(vars.remove(name), question, None, judge)?;
            draft.set_variable(name, &value);
        }
        Ok(())
    }

    fn ask_for_scopes<R: BufRead, W: Write>(
        &mut self,
        draft: &mut Draft<'_>,
        profile: &Value,
        dialog: &mut Dialog<R, W>,
    ) -> anyhow::Result<()> {
        let of_profile = profile.pointer("/config/scopes").map(plain).unwrap_or_default();
        let common = profile.get("common_scopes").and_then(Value::as_object).filter(|scopes| !scopes.is_empty());
        if let (None, Some(common)) = (&self.scopes, common) {
            dialog.tell("Common scopes:")?;
            for (scope, meaning) in common {
                dialog.tell(&format!("  {scope}  {}", plain(meaning)))?;
            }
        }
        let judge = |answer: &str| draft.problem("scopes", answer);
        let scopes = dialog.answer(self.scopes.take(), "Scopes, comma-separated", Some(&of_profile), judge)?;
        draft.set("scopes", Some(scopes));
        Ok(())
    }

    /// Returns the values of `--var` by name.
    fn take_vars(&mut self, profile: &Value) -> anyhow::Result<BTreeMap<String, String>> {
        let vars = input::pairs(&std::mem::take(&mut self.vars)).context("--var")?;
        let names: Vec<&str> = asked(profile).map(|(name, _)| name).collect();
        match vars.keys().find(|name| !names.contains(&name.as_str())) {
            Some(name) if names.is_empty() => bail!("--var {}: the profile asks for no variable", printable(name)),
            Some(name) => bail!("--var {}: the profile asks only for {}", printable(name), names.join(", ")),
            None => Ok(vars),
        }
    }

    fn draft<'a>(&mut self, profile: &'a Value) -> Draft<'a> {
        let id = self.integration.take().unwrap_or_else(|| self.provider.clone());
        let mut draft = Draft::new(profile, &id);
        draft.set("provider", Some(self.provider.as_str().to_owned()));
        draft.set("name", self.name.take());
        draft
    }
}

/// Asks for the client secret or for the file with the private key.
fn ask_for_credential<R: BufRead, W: Write>(
    draft: &mut Draft<'_>,
    profile: &Value,
    files: Files,
    dialog: &mut Dialog<R, W>,
) -> anyhow::Result<()> {
    let proof = Proof::of(profile);
    let secret = match files.secret {
        Some(secret) => secret,
        // Typed without echo.
        None if proof == Proof::Secret => {
            let needs_secret = Proof::needs_secret(profile);
            let judge = |secret: &str| draft.problem("client_secret", secret);
            typed_secret(needs_secret, judge, || rpassword::prompt_password("Client secret: "))?
        }
        None => Secret::default(),
    };
    draft.set("client_secret", Some(secret.expose().to_owned()));
    if !proof.has_key() {
        return Ok(());
    }
    let key = if let Some(key) = files.key {
        key
    } else {
        let judge = |file: &str| match input::read_file(Path::new(file)) {
            Ok(key) => draft.problem("client_key", key.expose()),
            Err(error) => Some(format!("{error:#}")),
        };
        let file = dialog.answer(None, "File with the app's private key (PEM)", None, judge)?;
        input::read_file(Path::new(&file))?
    };
    draft.set("client_key", Some(key.expose().to_owned()));
    Ok(())
}

/// Returns the variables that each config sets itself, with what they are.
fn asked(profile: &Value) -> impl Iterator<Item = (&str, &str)> {
    let asked = profile.get("ask").and_then(Value::as_object).into_iter().flatten();
    asked.map(|(name, question)| (name.as_str(), question.as_str().unwrap_or(name)))
}

/// Returns the secret that a person types. Asks until there is a usable one, or none if the client may be a public one.
fn typed_secret(
    is_needed: bool,
    judge: impl Fn(&str) -> Option<String>,
    mut ask: impl FnMut() -> std::io::Result<String>,
) -> anyhow::Result<Secret> {
    loop {
        let typed = ask().context("cannot read the secret")?;
        // A copied secret often has a line break or a blank at its end.
        let secret = typed.trim();
        if secret.is_empty() && is_needed {
            continue;
        }
        match judge(secret) {
            Some(problem) => note(&problem),
            None => return Ok(Secret::new(secret)),
        }
    }
}

#[cfg(test)]
mod tests;
