//! The OpenAPI 3.1 document of all routes.

use hyper::StatusCode;

use crate::gateway::routes::error::HttpError;
use crate::gateway::routes::reply::{self, Reply};
use crate::gateway::routes::request::ParsedRequest;

pub(crate) const DOCUMENT: &str = include_str!("openapi.json");

pub(in crate::gateway) fn document(request: &ParsedRequest) -> Result<Reply, HttpError> {
    request.query.expect_empty()?;
    Ok(reply::json(StatusCode::OK, DOCUMENT))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::call::Operation;

    fn document() -> Value {
        serde_json::from_str(DOCUMENT).unwrap()
    }

    /// The statuses with which an operation can answer.
    fn statuses(operation: Operation) -> BTreeSet<&'static str> {
        let mut statuses = BTreeSet::from(["200", "400", "405", "414", "431"]);
        if !operation.is_open() {
            statuses.extend(["401", "413", "429", "502", "503", "504"]);
        }
        if operation.missing_is_404() {
            statuses.insert("404");
        }
        if operation == Operation::Start {
            statuses.insert("403");
        }
        if operation == Operation::CallbackForm {
            statuses.insert("303");
            statuses.remove("200");
            statuses.remove("401");
        }
        if operation == Operation::Ready {
            statuses.insert("503");
        }
        if operation == Operation::Metrics {
            statuses.extend(["404", "502"]);
        }
        statuses
    }

    #[test]
    fn every_route_is_documented_with_its_statuses_and_no_other_route_is() {
        let document = document();
        let mut documented = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            documented.extend(methods.as_object().unwrap().keys().map(|method| (path.as_str(), method.clone())));
        }
        let mut routed = BTreeSet::new();
        for operation in Operation::ALL {
            let route = operation.route();
            let method = route.method.to_lowercase();
            for path in route.paths {
                let responses = document["paths"][path][&method]["responses"].as_object().unwrap();
                let found: BTreeSet<&str> = responses.keys().map(String::as_str).collect();
                assert_eq!(found, statuses(*operation), "{method} {path}");
                routed.insert((*path, method.clone()));
            }
        }
        assert_eq!(documented, routed);
    }

    #[test]
    fn all_references_resolve() {
        fn check(value: &Value, document: &Value) {
            if let Some(reference) = value["$ref"].as_str() {
                assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
            }
            match value {
                Value::Object(fields) => fields.values().for_each(|value| check(value, document)),
                Value::Array(values) => values.iter().for_each(|value| check(value, document)),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        check(&document(), &document());
    }
}
