//! A config that is being made: the profile's fields, and the answers so far.

use serde_json::{Map, Value, json};

use crate::integration::{ConfigError, UrlRules, parse_value};
use crate::subject::Integration;

#[derive(Clone)]
pub(super) struct Draft<'a> {
    profile: &'a Value,
    integration: Integration,
    fields: Map<String, Value>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(profile: &'a Value, integration: &Integration) -> Self {
        let fields = Map::from_iter([("integration_id".to_owned(), integration.as_str().into())]);
        Self { profile, integration: integration.clone(), fields }
    }

    /// Returns the body of the PUT.
    pub(super) fn fields(self) -> Map<String, Value> {
        self.fields
    }

    /// Sets a field, unless there is no value.
    pub(super) fn set(&mut self, field: &str, value: Option<String>) {
        self.fields.extend(value.map(|value| (field.to_owned(), value.into())));
    }

    /// Makes the value the only one of the variable. The profile's own value is an example.
    pub(super) fn set_variable(&mut self, name: &str, value: &str) {
        let of_profile = || self.profile.pointer("/config/variables").cloned().unwrap_or_default();
        let variables = self.fields.entry("variables").or_insert_with(of_profile);
        if let Some(variable) = variables.get_mut(name).and_then(Value::as_object_mut) {
            variable.insert("values".to_owned(), json!([value]));
            variable.insert("default".to_owned(), value.into());
        }
    }

    /// Returns what is wrong with an answer for a field, by the rules of a PUT. An empty answer leaves the field out.
    pub(super) fn problem(&self, field: &str, answer: &str) -> Option<String> {
        if answer.is_empty() {
            return None;
        }
        let sample = if field == "redirect_url" { "https://hub.example/callback" } else { "sample" };
        self.problem_of(field, |draft, is_sample| {
            draft.set(field, Some(if is_sample { sample } else { answer }.to_owned()));
        })
    }

    /// Returns what is wrong with an answer for a variable that the profile asks for.
    pub(super) fn problem_of_variable(&self, name: &str, answer: &str) -> Option<String> {
        let variable = self.profile.pointer("/config/variables").and_then(|variables| variables.get(name));
        let examples = variable.and_then(|variable| variable.get("values")).and_then(Value::as_array);
        let example = examples.and_then(|examples| examples.first()).and_then(Value::as_str);
        if example == Some(answer) {
            return Some("this is the example of the profile: enter your own".to_owned());
        }
        self.problem_of(&format!("variables.{name}"), |draft, is_sample| match (is_sample, example) {
            (false, _) => draft.set_variable(name, answer),
            (true, Some(example)) => draft.set_variable(name, example),
            (true, None) => {}
        })
    }

    /// Checks the config with the answer. Its other fields may have errors too: secrets of the profile are hidden, and
    /// questions are still open. Those errors are in the config with a sample in place of the answer, too.
    fn problem_of(&self, field: &str, set: impl Fn(&mut Self, bool)) -> Option<String> {
        let check = |is_sample| {
            let mut draft = self.clone();
            set(&mut draft, is_sample);
            draft.check().err()
        };
        let error = check(false)?;
        let is_of_field = error.field().is_some_and(|path| path.starts_with(field));
        (is_of_field || check(true).as_ref() != Some(&error)).then(|| error.to_string())
    }

    fn check(&self) -> Result<(), ConfigError> {
        let mut config = self.profile.get("config").and_then(Value::as_object).cloned().unwrap_or_default();
        let samples = [
            ("name", "sample"),
            ("scopes", ""),
            ("client_id", "sample"),
            ("client_secret", "sample"),
            ("redirect_url", "https://hub.example/callback"),
        ];
        for (field, sample) in samples {
            config.entry(field).or_insert_with(|| sample.into());
        }
        config.extend(self.fields.clone());
        // Workers may allow `http` for this machine. Their PUT decides.
        parse_value(config.into(), &self.integration, UrlRules { allow_insecure_urls: true }).map(drop)
    }
}
