/// An error in a config, or in the scopes and variables of a login. It names fields and never contains their values: a
/// value could be a secret in the wrong field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("the config must be a JSON object of at most 64 KiB")]
    NotAnObject,
    #[error("cannot parse the body: {problem} (line {line}, column {column})")]
    Json {
        problem: &'static str,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    #[error("unknown field: {}", .0.join(", "))]
    Unknown(Vec<String>),
    #[error("missing field: {0}")]
    Missing(&'static str),
    #[error("{field} must be {expected}")]
    Invalid {
        /// Followed by `.` and the key for a value inside an object.
        field: String,
        expected: &'static str,
    },
    /// A login asks for a scope that the config doesn't list.
    #[error("scopes must be among those of the config")]
    Scopes,
    /// A login sets a parameter that the config doesn't list, or one of the wrong form.
    #[error(
        "params may have those of the config's `login_params`, of at most 1024 bytes without control characters and `${{`"
    )]
    LoginParams,
    /// A login's value for a URL variable is missing, unknown or of the wrong form.
    #[error("variable {name} {problem}")]
    Variable {
        /// `?` for a variable that the config doesn't have: its name is the caller's text.
        name: String,
        problem: &'static str,
    },
}

impl ConfigError {
    pub(super) fn invalid(field: impl Into<String>, expected: &'static str) -> Self {
        Self::Invalid { field: field.into(), expected }
    }
}
