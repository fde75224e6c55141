//! The description of all routes, OpenAPI 3.1.

use hyper::StatusCode;

use crate::gateway::routes::error::HttpError;
use crate::gateway::routes::reply::{self, Reply};
use crate::gateway::routes::request::Asked;

/// The OpenAPI document in JSON.
pub(crate) const DOCUMENT: &str = include_str!("openapi.json");

pub(in crate::gateway) fn document(asked: &Asked) -> Result<Reply, HttpError> {
    asked.query.end()?;
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

    /// The codes that an operation can answer with when it is routed.
    fn codes(operation: Operation) -> BTreeSet<&'static str> {
        let mut codes = BTreeSet::from(["200", "400", "405", "431"]);
        if !operation.is_open() {
            codes.extend(["401", "413", "429", "502", "503", "504"]);
        }
        if operation.missing_is_404() {
            codes.insert("404");
        }
        if operation == Operation::Start {
            codes.remove("200");
            codes.insert("303");
        }
        if operation == Operation::Ready {
            codes.insert("503");
        }
        if operation == Operation::Metrics {
            codes.extend(["404", "502"]);
        }
        codes
    }

    #[test]
    fn every_route_is_documented_with_its_codes_and_nothing_else_is() {
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
                assert_eq!(found, codes(*operation), "{method} {path}");
                routed.insert((*path, method.clone()));
            }
        }
        assert_eq!(documented, routed);
    }

    #[test]
    fn all_references_lead_somewhere() {
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
