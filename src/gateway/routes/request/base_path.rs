//! The path that an ingress leaves in front of the gateway's own.

use hyper::Uri;
use hyper::http::uri::PathAndQuery;

/// Removes the base path from a request's target. Signatures of requests therefore cover the gateway's own path, whether an
/// ingress removes the base path or not. A target without the base path stays as it is: probes come past the ingress.
pub(in crate::gateway) fn remove_base_path(uri: &mut Uri, base_path: &str) {
    let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let rest = target.strip_prefix(base_path).filter(|rest| rest.starts_with('/') && !base_path.is_empty());
    let Some(Ok(rest)) = rest.map(str::parse::<PathAndQuery>) else { return };
    *uri = Uri::from(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o13_a_base_path_is_removed() {
        #[track_caller]
        fn check(base_path: &str, uri: &str, expected: &str) {
            let mut uri = uri.parse().unwrap();
            remove_base_path(&mut uri, base_path);
            assert_eq!(uri.to_string(), expected);
        }
        check("/bus", "/bus/healthz?a=/bus/b", "/healthz?a=/bus/b");
        check("/bus", "/bus/bus/healthz", "/bus/healthz");
        check("/bus", "https://hub.example/bus/healthz", "/healthz");
        check("/a/b", "/a/b/", "/");
        // Not below it.
        check("/bus", "/healthz", "/healthz");
        check("/bus", "/business/healthz", "/business/healthz");
        check("/bus", "/bus", "/bus");
        check("/bus", "/bus?a=b", "/bus?a=b");
        check("", "//healthz", "//healthz");
        check("", "/healthz", "/healthz");
    }
}
