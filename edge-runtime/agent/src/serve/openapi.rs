//! The description of what is served over HTTP (OpenAPI 3.1), as a file beside this one. That it is exact is tested: against
//! the paths that there are here, against real answers by `tests/it/openapi.rs`.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};

use super::routes::Reply;

const DESCRIPTION: &[u8] = include_bytes!("openapi.json");

/// `GET openapi.json`.
pub(super) fn reply() -> Reply {
    let mut reply = Reply::new(Full::new(Bytes::from_static(DESCRIPTION)));
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::super::routes::{Place, tests::EVERY_PLACE};
    use super::*;

    #[test]
    fn it_has_every_path_with_its_methods_and_no_other() {
        let description: Value = serde_json::from_slice(DESCRIPTION).unwrap();
        assert_eq!(description["info"]["version"], env!("CARGO_PKG_VERSION"));
        let paths = description["paths"].as_object().unwrap();
        let described: BTreeSet<&str> = paths.keys().map(String::as_str).collect();
        assert_eq!(described, BTreeSet::from(EVERY_PLACE));
        for (path, item) in paths {
            let place = Place::of(path).unwrap();
            let methods: Vec<String> =
                item.as_object().unwrap().keys().filter(|k| *k != "parameters").map(|k| k.to_uppercase()).collect();
            // What is got has a head, too.
            let said = place.methods().replace(", HEAD", "");
            assert_eq!(methods, [said], "{path}");
        }
    }
}
