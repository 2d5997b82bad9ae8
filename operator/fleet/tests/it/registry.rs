//! The embedded registry as a gateway sees it.

use ballast_bundle::Digest;
use ballast_fleet::registry::Repository;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::Server;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn repository(name: &str) -> Repository {
    name.parse().unwrap()
}

#[tokio::test]
async fn blobs_come_whole_in_part_and_as_heads() {
    let server = Server::start().await;
    let (identity, key) = server.enrolled("ns-a").await;
    let content: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
    let blob = server.registry.put_blob(&repository("ns-a/digits"), &content).unwrap();
    let path = format!("/v2/ns-a/digits/blobs/{}", blob.digest);
    let mut connection = server.connect(&identity, &key).await;
    assert_eq!(connection.get("/v2/").await.status, StatusCode::OK);

    let whole = connection.get(&path).await;
    assert_eq!((whole.status, whole.body.as_ref()), (StatusCode::OK, content.as_slice()));
    assert_eq!(whole.headers["docker-content-digest"], blob.digest.to_string());
    let rest = connection.send(Method::GET, &path, &[("range", "bytes=299000-")], "").await.unwrap();
    assert_eq!((rest.status, rest.body.as_ref()), (StatusCode::PARTIAL_CONTENT, &content[299_000..]));
    assert_eq!(rest.headers["content-range"], "bytes 299000-299999/300000");
    let beyond = connection.send(Method::GET, &path, &[("range", "bytes=300000-")], "").await.unwrap();
    assert_eq!(beyond.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(beyond.headers["content-range"], "bytes */300000");
    let head = connection.send(Method::HEAD, &path, &[], "").await.unwrap();
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
    assert_eq!(head.headers["content-length"], "300000");
    let write = connection.send(Method::POST, "/v2/ns-a/digits/blobs/uploads/", &[], "x").await.unwrap();
    assert_eq!(write.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn manifests_tags_and_referrers() {
    let server = Server::start().await;
    let (identity, key) = server.enrolled("ns-a").await;
    let name = repository("ns-a/digits");
    let bytes = json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": []}).to_string();
    let manifest =
        server.registry.put_manifest(&name, MANIFEST, bytes.as_bytes(), &["1.0.0-x86-64", "latest"]).unwrap();
    let bundle = "application/vnd.dev.sigstore.bundle.v0.3+json";
    let referrer = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": bundle, "layers": [],
        "subject": {"mediaType": MANIFEST, "digest": manifest.digest, "size": manifest.size},
    });
    let referrer = server.registry.put_manifest(&name, MANIFEST, referrer.to_string().as_bytes(), &[]).unwrap();

    let mut connection = server.connect(&identity, &key).await;
    for reference in ["latest".to_owned(), manifest.digest.to_string()] {
        let answer = connection.get(&format!("/v2/ns-a/digits/manifests/{reference}")).await;
        assert_eq!((answer.status, answer.body.as_ref()), (StatusCode::OK, bytes.as_bytes()));
        assert_eq!(answer.headers["content-type"], MANIFEST);
    }
    let tags: Value = connection.get("/v2/ns-a/digits/tags/list").await.json();
    assert_eq!(tags, json!({"name": "ns-a/digits", "tags": ["1.0.0-x86-64", "latest"]}));
    let page: Value = connection.get("/v2/ns-a/digits/tags/list?n=1&last=1.0.0-x86-64").await.json();
    assert_eq!(page["tags"], json!(["latest"]));

    let path = format!("/v2/ns-a/digits/referrers/{}", manifest.digest);
    let index: Value = connection.get(&path).await.json();
    assert_eq!(index["manifests"][0]["digest"], referrer.digest.to_string());
    assert_eq!(index["manifests"][0]["artifactType"], bundle);
    let filtered = connection.get(&format!("{path}?artifactType=application%2Fother")).await;
    assert_eq!(filtered.headers["oci-filters-applied"], "artifactType");
    assert_eq!(filtered.json::<Value>()["manifests"], json!([]));
    let none: Value = connection.get(&format!("/v2/ns-a/digits/referrers/{}", Digest::of(b"none"))).await.json();
    assert_eq!(none["manifests"], json!([]));
}

#[tokio::test]
async fn a_digest_is_read_only_through_a_repository_of_ones_own_that_has_it() {
    let server = Server::start().await;
    let (identity, key) = server.enrolled("ns-a").await;
    let secret = server.registry.put_blob(&repository("ns-b/digits"), b"of another namespace").unwrap();
    let sibling = server.registry.put_blob(&repository("ns-a/other"), b"of another deployment").unwrap();
    server.registry.put_blob(&repository("ns-a/digits"), b"mine").unwrap();
    let mut connection = server.connect(&identity, &key).await;
    for path in [
        format!("/v2/ns-b/digits/blobs/{}", secret.digest),
        format!("/v2/ns-a/digits/blobs/{}", secret.digest),
        format!("/v2/ns-a/digits/blobs/{}", sibling.digest),
        format!("/v2/ns-a/../ns-b/digits/blobs/{}", secret.digest),
        format!("/v2/ns-a%2F..%2Fns-b/digits/blobs/{}", secret.digest),
        "/v2/ns-b/digits/tags/list".to_owned(),
        format!("/v2/ns-b/digits/referrers/{}", secret.digest),
    ] {
        assert_eq!(connection.get(&path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    let path = format!("/v2/ns-a/other/blobs/{}", sibling.digest);
    assert_eq!(connection.get(&path).await.status, StatusCode::OK);
}

#[test]
fn garbage_is_what_no_repository_has() {
    let directory = tempfile::tempdir().unwrap();
    let registry = ballast_fleet::registry::Registry::open(directory.path()).unwrap();
    let (a, b) = (repository("ns/a"), repository("ns/runner/x86-64"));
    let shared = registry.put_blob(&a, b"shared").unwrap();
    registry.link_blob(&b, &shared.digest).unwrap();
    let alone = registry.put_blob(&a, b"alone").unwrap();
    assert_eq!(registry.collect_garbage().unwrap(), 0);
    registry.remove(&a).unwrap();
    assert!(!registry.has(&a, &shared));
    assert_eq!(registry.collect_garbage().unwrap(), alone.size);
    assert!(registry.has(&b, &shared) && !registry.blob_path(&alone.digest).exists());
}
