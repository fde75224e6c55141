//! The route table: maps a path and a method to an operation.

use matchit::{InsertError, Router};

use crate::call::{Operation, Route};
use crate::gateway::routes::error::HttpError;
use crate::subject::{ConnectionName, Integration};

impl Operation {
    /// Returns true if an unknown integration, connection or key is a 404; on other routes it is a 400.
    pub(in crate::gateway) fn missing_is_404(self) -> bool {
        matches!(
            self,
            Self::GetConfig
                | Self::GetProvider
                | Self::Login
                | Self::Token
                | Self::Refresh
                | Self::Revoke
                | Self::RevokeKey
        )
    }

    /// Returns true if browsers open the path by a link. The only credential is then the state or ticket in the link.
    pub(in crate::gateway) fn is_for_browsers(self) -> bool {
        matches!(self, Self::Callback | Self::CallbackForm | Self::StartPage | Self::Start)
    }

    /// Returns true if monitoring polls the path. It has no rate limit: a rejected check would look like a failure.
    pub(in crate::gateway) fn is_for_monitoring(self) -> bool {
        matches!(self, Self::Health | Self::Ready | Self::Metrics)
    }

    /// Returns true if the operation needs no credential.
    pub(in crate::gateway) fn is_open(self) -> bool {
        matches!(self, Self::Health | Self::Ready | Self::Metrics | Self::OpenApi)
    }
}

/// The routes that a listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Served {
    All,
    /// `/metrics` has its own listener.
    WithoutMetrics,
    /// `/metrics`, `/healthz` and `/readyz`.
    MetricsOnly,
}

impl Served {
    fn includes(self, operation: Operation) -> bool {
        let is_health = matches!(operation, Operation::Health | Operation::Ready);
        match self {
            Self::All => true,
            Self::WithoutMetrics => operation != Operation::Metrics,
            Self::MetricsOnly => is_health || operation == Operation::Metrics,
        }
    }
}

/// A path pattern with its methods.
#[derive(Debug)]
pub(in crate::gateway) struct Row {
    pub(in crate::gateway) pattern: &'static str,
    methods: Vec<(&'static str, Operation)>,
}

/// The routes of one listener.
#[derive(Debug)]
pub(in crate::gateway) struct Routes(Router<Row>);

/// The names in a path, still percent-encoded and not validated.
#[derive(Debug, Default)]
pub(in crate::gateway) struct PathNames {
    integration: Option<String>,
    connection: Option<String>,
    key: Option<String>,
    provider: Option<String>,
}

/// The row that a path matches.
#[derive(Debug)]
pub(in crate::gateway) struct Found<'a> {
    pub(in crate::gateway) row: &'a Row,
    pub(in crate::gateway) names: PathNames,
}

impl Routes {
    pub(in crate::gateway) fn new(served: Served) -> Result<Self, InsertError> {
        let mut rows: Vec<Row> = Vec::new();
        for operation in Operation::ALL {
            let Route { method, paths } = operation.route();
            for pattern in paths {
                match rows.iter_mut().find(|row| row.pattern == *pattern) {
                    Some(row) => row.methods.push((method, *operation)),
                    None => rows.push(Row { pattern, methods: vec![(method, *operation)] }),
                }
            }
        }
        let mut router = Router::new();
        for row in rows.into_iter().filter(|row| row.methods.iter().any(|(_, operation)| served.includes(*operation))) {
            router.insert(row.pattern, row)?;
        }
        Ok(Self(router))
    }

    pub(in crate::gateway) fn find(&self, path: &str) -> Result<Found<'_>, HttpError> {
        // Load balancers and people add a slash to the path of a probe.
        let exact = self.0.at(path);
        let probe = path.strip_suffix('/').filter(|_| exact.is_err()).and_then(|shorter| self.0.at(shorter).ok());
        let matched = probe.filter(|probe| probe.value.is_for_monitoring()).map_or(exact, Ok)?;
        let name = |name| matched.params.get(name).map(str::to_owned);
        let names = PathNames {
            integration: name("integration_id"),
            connection: name("connection_id"),
            key: name("key_id"),
            provider: name("provider"),
        };
        Ok(Found { row: matched.value, names })
    }
}

impl Row {
    fn is_for_monitoring(&self) -> bool {
        self.methods.iter().all(|(_, operation)| operation.is_for_monitoring())
    }

    pub(in crate::gateway) fn operation(&self, method: &str) -> Result<Operation, HttpError> {
        // Some load balancers probe by HEAD only. Other paths refuse it: links of a login must not be looked at before
        // they are opened.
        let is_probe = self.is_for_monitoring();
        let wanted = if is_probe && method == "HEAD" { "GET" } else { method };
        let found = self.methods.iter().find(|(taken, _)| *taken == wanted);
        found.map(|(_, operation)| *operation).ok_or_else(|| {
            let methods = self.methods.iter().map(|(method, _)| *method).chain(is_probe.then_some("HEAD"));
            HttpError::Method(methods.collect::<Vec<_>>().join(", "))
        })
    }
}

impl PathNames {
    pub(in crate::gateway) fn has_integration(&self) -> bool {
        self.integration.is_some()
    }

    pub(in crate::gateway) fn integration(&self) -> Result<Integration, HttpError> {
        Ok(Integration::parse(&decoded(self.integration.as_deref()))?)
    }

    pub(in crate::gateway) fn connection(&self) -> Result<ConnectionName, HttpError> {
        Ok(ConnectionName::parse(&decoded(self.connection.as_deref()))?)
    }

    /// The key's id. Workers reject ids of another form.
    pub(in crate::gateway) fn key(&self) -> String {
        decoded(self.key.as_deref())
    }

    /// The id of a provider's profile. Workers know none with an id of another form.
    pub(in crate::gateway) fn provider(&self) -> String {
        decoded(self.provider.as_deref())
    }
}

/// Undoes percent-encoding. Invalid encoding becomes empty, which is not a valid name.
fn decoded(segment: Option<&str>) -> String {
    let mut bytes = segment.unwrap_or_default().bytes();
    let hex = |bytes: &mut std::str::Bytes<'_>| {
        let digit = char::from(bytes.next()?).to_digit(16)?;
        u8::try_from(digit).ok()
    };
    let mut plain = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            plain.push(byte);
            continue;
        }
        let (Some(high), Some(low)) = (hex(&mut bytes), hex(&mut bytes)) else { return String::new() };
        plain.push(high << 4 | low);
    }
    String::from_utf8(plain).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(served: Served, path: &str, expected: Option<&str>) {
        let routes = Routes::new(served).unwrap();
        assert_eq!(routes.find(path).ok().map(|found| found.row.pattern), expected, "{path}");
    }

    #[test]
    fn fixed_paths_win_over_names() {
        let all = |path, expected| check(Served::All, path, expected);
        all("/hub/integrations/oauth-config", Some("/hub/integrations/oauth-config"));
        all("/hub/integrations/oauth-config/slack", Some("/hub/integrations/oauth-config/{integration_id}"));
        all("/hub/integrations/slack/oauth-config", Some("/hub/integrations/{integration_id}/oauth-config"));
        all("/hub/integrations/oauth-connections", Some("/hub/integrations/oauth-connections"));
        all("/hub/integrations/slack/oauth-connections", Some("/hub/integrations/{integration_id}/oauth-connections"));
        all("/hub/integrations/oauth-callback", Some("/hub/integrations/oauth-callback"));
        all("/hub/integrations/oauth-callback/", None);
        all("/hub/integrations//oauth-config", None);
        all("/healthz/", Some("/healthz"));
        all("/healthz//", None);
        all("/openapi.json/", None);
        all("/", None);
    }

    #[test]
    fn metrics_can_have_their_own_listener() {
        check(Served::WithoutMetrics, "/metrics", None);
        check(Served::WithoutMetrics, "/openapi.json", Some("/openapi.json"));
        check(Served::MetricsOnly, "/metrics", Some("/metrics"));
        check(Served::MetricsOnly, "/healthz", Some("/healthz"));
        check(Served::MetricsOnly, "/hub/integrations/oauth-config", None);
    }

    #[test]
    fn names_are_decoded_then_checked() {
        let name = |text: &str| {
            PathNames { integration: Some(text.to_owned()), ..PathNames::default() }
                .integration()
                .ok()
                .map(String::from)
        };
        assert_eq!(name("sl%61ck").as_deref(), Some("slack"));
        for bad in ["%", "%6", "%zz", "a%2Eb", "a%2Fb", "%ff", "a%00", "%2A", "a+b", "oauth-config"] {
            assert_eq!(name(bad), None, "{bad}");
        }
    }
}
