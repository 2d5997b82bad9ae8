//! cosign and this crate read each other's keys and statements. What cosign made, and how, is in `tests/cosign/README.md`;
//! what this crate made for cosign is `tests/cosign/ours`, byte for byte (`BALLAST_BLESS=1` writes it anew, and then
//! somebody should run the commands of the README again).

use std::fs;
use std::path::{Path, PathBuf};

use ballast_bundle::manifest::{EMPTY_CONFIG, MANIFEST_TYPE, blob_of, bundle_manifest, statement_manifest};
use ballast_bundle::*;

use crate::world::{Files, RELEASE, World, key};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cosign")
}

fn text(name: &str) -> String {
    fs::read_to_string(directory().join(name)).unwrap()
}

const PASSWORD: &[u8] = b"correct horse";

#[test]
fn a_private_key_of_cosigns_is_read_with_its_password_only() {
    let pem = text("cosign.key");
    let key = SigningKey::from_cosign_pem(&pem, PASSWORD).unwrap();
    assert_eq!(key.public(), VerifyingKey::from_pem(&text("cosign.pub")).unwrap());
    assert!(matches!(SigningKey::from_cosign_pem(&pem, b"correct horse "), Err(KeyError::Password)));
    assert!(matches!(SigningKey::from_cosign_pem(&pem, b""), Err(KeyError::Password)));
    assert!(matches!(
        SigningKey::from_cosign_pem(&pem.replace("SIGSTORE", "SECRET"), PASSWORD),
        Err(KeyError::CosignPem)
    ));
}

#[test]
fn either_form_of_a_private_key_is_read() {
    let cosigns = SigningKey::from_pem_or_cosign(&text("cosign.key"), PASSWORD).unwrap();
    let plain = SigningKey::from_pem_or_cosign(&cosigns.to_pem().unwrap(), b"").unwrap();
    assert_eq!(plain.public(), cosigns.public());
    assert!(matches!(SigningKey::from_pem_or_cosign(&text("cosign.key"), b"wrong"), Err(KeyError::Password)));
    assert!(matches!(SigningKey::from_pem_or_cosign(&text("cosign.pub"), b""), Err(KeyError::PrivatePem)));
}

fn cosigns() -> RoleKeys {
    let key = VerifyingKey::from_pem(&text("cosign.pub")).unwrap();
    RoleKeys { keys: [(key.key_id(), key.to_pem())].into(), threshold: 1 }
}

#[test]
fn a_statement_that_cosign_signed_is_verified() {
    let bytes = fs::read(directory().join("signed-statement.sigstore.json")).unwrap();
    let good = good_statement();
    let signed = Unverified::new(bytes.as_slice()).signed_statement(&cosigns(), &cosigns()).unwrap();
    assert_eq!(signed, SignedStatement::Release(good));
    let other = crate::world::keys_of(&[RELEASE], 1);
    let refused = Unverified::new(bytes.as_slice()).signed_statement(&other, &other);
    assert_eq!(refused.unwrap_err(), VerifyError::Signature { valid: 0, needed: 1 });
}

/// `cosign attest-blob --predicate` writes statements of v0.1 around it; ours are v1.
#[test]
fn an_older_statement_is_named_as_such() {
    let bytes = fs::read(directory().join("attested-blob.sigstore.json")).unwrap();
    let refused = Unverified::new(bytes.as_slice()).signed_statement(&cosigns(), &cosigns());
    assert_eq!(refused.unwrap_err().to_string(), "malformed document: an in-toto statement of another version than v1");
}

/// The good world's release statement.
fn good_statement() -> ReleaseStatement {
    let (_, payload) = claims(&World::good().files()["release.json"]).unwrap();
    let statement: serde_json::Value = serde_json::from_slice(&payload).unwrap();
    serde_json::from_value(statement["predicate"].clone()).unwrap()
}

/// An OCI image layout with the good world's bundle and its statement as a referrer: what a registry would hold.
fn layout() -> Files {
    let world = World::good().files();
    let release = good_statement();
    let bundle = bundle_manifest(&release.layers, &World::good().contract);
    assert_eq!(bundle.manifest, world["manifest.json"]);
    let statement = &world["release.json"];
    let referrer = statement_manifest(&blob_of(statement), &bundle.blob(), RELEASE_PREDICATE);
    let of = |name: &str| world[name].clone();
    let blobs = [
        bundle.manifest.clone(),
        bundle.config.clone(),
        of("weights.bin"),
        of("plan.bin"),
        of("contract.json"),
        of("golden.safetensors"),
        referrer.manifest.clone(),
        EMPTY_CONFIG.to_vec(),
        statement.clone(),
    ];
    // By hand, since the order of a `json!` map's keys is some other crate's to choose. The annotation is what cosign finds
    // the image in a layout by.
    let entry = |blob: Blob, kind: &str| {
        format!(
            r#"{{"mediaType":"{MANIFEST_TYPE}","digest":"{}","size":{},"annotations":{{"kind":"{kind}"}}}}"#,
            blob.digest, blob.size
        )
    };
    let image = entry(bundle.blob(), "dev.cosignproject.cosign/image");
    let attached = entry(referrer.blob(), "dev.cosignproject.cosign/referrer");
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{image},{attached}]}}"#
    );
    let mut files: Files =
        blobs.into_iter().map(|bytes| (format!("blobs/sha256/{}", Digest::of(&bytes).hex()), bytes)).collect();
    files.insert("index.json".to_owned(), index.into_bytes());
    files.insert("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
    files.insert("release.pub".to_owned(), key(RELEASE).public().to_pem().into_bytes());
    files
}

#[test]
fn what_cosign_was_shown_is_what_this_crate_makes() {
    let (ours, files) = (directory().join("ours"), layout());
    if std::env::var_os("BALLAST_BLESS").is_some() {
        let _ = fs::remove_dir_all(&ours);
        fs::create_dir_all(ours.join("blobs/sha256")).unwrap();
        for (name, bytes) in &files {
            fs::write(ours.join(name), bytes).unwrap();
        }
    }
    for (name, bytes) in &files {
        let stored = fs::read(ours.join(name)).unwrap_or_default();
        assert!(stored == *bytes, "tests/cosign/ours/{name} differs; BALLAST_BLESS=1 writes it anew");
    }
    assert_eq!(fs::read_dir(ours.join("blobs/sha256")).unwrap().count(), files.len() - 3);
}
