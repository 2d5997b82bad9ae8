//! Every parser, on any bytes and on good documents with something changed: it answers, and never admits what was changed.

use ballast_bundle::golden::Golden;
use ballast_bundle::manifest::{bundle_manifest, parse_bundle_manifest};
use ballast_bundle::*;
use proptest::prelude::*;

use crate::walk::admit;
use crate::world::*;

fn blob() -> impl Strategy<Value = Blob> {
    (any::<[u8; 32]>(), any::<u64>()).prop_map(|(raw, size)| Blob { digest: Digest::from_raw(raw), size })
}

/// Bytes that are no longer what they were: one bit, one byte less, one more, or a piece twice.
fn damaged(bytes: &[u8], at: usize, how: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = at % bytes.len();
    match how % 4 {
        0 => bytes[at] ^= 1 << (how / 4 % 8),
        1 => drop(bytes.remove(at)),
        2 => bytes.insert(at, how),
        _ => bytes.extend_from_within(at..),
    }
    bytes
}

const SIGNED: [&str; 12] = [
    "root-1.json",
    "root-2.json",
    "pointer.json",
    "assignment.json",
    "release.json",
    "runner.json",
    "manifest.json",
    "contract.json",
    "weights.bin",
    "plan.bin",
    "golden.safetensors",
    "runner.bin",
];

/// What envelopes say besides the signed payload and signatures: changes there change nothing that is verified.
fn same_meaning(name: &str, before: &[u8], after: &[u8]) -> bool {
    let parse = |bytes: &[u8]| -> Option<(String, Vec<String>)> {
        // What is skipped need not even be UTF-8; a `Value` would insist.
        let mut json: serde_json::Value = serde_json::from_str(&String::from_utf8_lossy(bytes)).ok()?;
        if name == "release.json" || name == "runner.json" {
            json = json["dsseEnvelope"].take();
        }
        let envelope: Envelope = serde_json::from_value(json).ok()?;
        Some((envelope.payload, envelope.signatures.into_iter().map(|s| s.sig).collect()))
    };
    name.ends_with(".json") && parse(before).is_some_and(|p| Some(p) == parse(after))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_document_is_never_admitted(name in prop::sample::select(&SIGNED[..]), at in any::<usize>(), how in any::<u8>()) {
        let mut files = World::good().files();
        let good = files[name].clone();
        let bytes = damaged(&good, at, how);
        files.insert(name.to_owned(), bytes.clone());
        let admitted = admit(&files, None).is_ok();
        // The statements' own digests are in the assignment; whoever downloads them checks those as with any blob.
        prop_assert!(!admitted || same_meaning(name, &good, &bytes), "{name} at {at} by {how}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_get_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let contract = World::good().contract;
        let _ = parse_bundle_manifest(&bytes);
        let _ = claims(&bytes);
        let _ = Golden::of_bundle(&bytes, &contract);
        let _ = serde_json::from_slice::<Envelope>(&bytes).map(|e| Unverified::new(e).first_root().is_ok());
        let text = String::from_utf8_lossy(&bytes);
        prop_assert!(SigningKey::from_pem(&text).is_err());
        prop_assert!(SigningKey::from_cosign_pem(&text, b"").is_err());
        prop_assert!(VerifyingKey::from_pem(&text).is_err());
        let _ = text.parse::<Digest>();
        let _ = text.parse::<TargetName>();
    }

    #[test]
    fn a_golden_header_of_any_shape_gets_an_answer(
        dtype in "[A-Z0-9]{1,4}",
        shape in prop::collection::vec(any::<u64>(), 0..5),
        start in any::<usize>(),
        end in any::<usize>(),
        data in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let header = serde_json::json!({"inputs/image": {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}}).to_string();
        let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat();
        prop_assert!(Golden::of_bundle(&bytes, &World::good().contract).is_err());
    }

    #[test]
    fn manifests_come_back(weights in blob(), plan in blob(), contract in blob(), golden in blob()) {
        let layers = ReleaseLayers { weights, plan, contract, golden };
        let manifest = bundle_manifest(&layers, &World::good().contract);
        prop_assert_eq!(parse_bundle_manifest(&manifest.manifest).unwrap(), layers);
    }

    #[test]
    fn a_stream_passes_only_whole_and_unchanged(
        bytes in prop::collection::vec(any::<u8>(), 1..200),
        cut in 1usize..50,
        at in any::<usize>(),
        how in any::<u8>(),
    ) {
        let blob = manifest::blob_of(&bytes);
        let run = |bytes: &[u8]| {
            let mut stream = StreamVerifier::of(&blob);
            bytes.chunks(cut).try_for_each(|piece| stream.update(piece)).and_then(|()| stream.finish())
        };
        prop_assert_eq!(run(&bytes), Ok(()));
        prop_assert!(run(&damaged(&bytes, at, how)).is_err());
    }

    #[test]
    fn keys_come_back_and_sign_the_same_bytes_every_time(seed in any::<[u8; 32]>(), message in prop::collection::vec(any::<u8>(), 0..100)) {
        let Ok(key) = SigningKey::generate(seed) else { return Ok(()) };
        let again = SigningKey::from_pem(&key.to_pem().unwrap()).unwrap();
        let signature = key.sign(&message);
        prop_assert_eq!(&again.sign(&message), &signature);
        let public = VerifyingKey::from_pem(&key.public().to_pem()).unwrap();
        prop_assert_eq!(&public, &key.public());
        prop_assert!(public.verifies(&message, &signature));
        prop_assert!(!public.verifies(&[&message[..], b"!"].concat(), &signature));
    }

    #[test]
    fn digests_come_back(raw in any::<[u8; 32]>()) {
        let digest = Digest::from_raw(raw);
        prop_assert_eq!(digest.to_string().parse(), Ok(digest));
    }
}

/// RFC 6979 A.2.5, P-256 with SHA-256, message "sample".
#[test]
fn signatures_are_those_of_rfc_6979() {
    let mut scalar = [0; 32];
    hex::decode_to_slice("c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721", &mut scalar).unwrap();
    let key = SigningKey::generate(scalar).unwrap();
    let r = "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716";
    let s = "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8";
    // DER: SEQUENCE of two INTEGERs; both have their highest bit set, so each gets a zero byte.
    assert_eq!(hex::encode(key.sign(b"sample")), format!("3046022100{r}022100{s}"));
    assert!(SigningKey::generate([0; 32]).is_err());
    assert!(SigningKey::generate([255; 32]).is_err());
}

/// The pre-authentication encoding's example out of the DSSE specification (protocol.md, "Test vectors").
#[test]
fn what_is_signed_is_dsse() {
    let encoded = pre_authentication_encoding("http://example.com/HelloWorld", b"hello world");
    assert_eq!(encoded, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
}
