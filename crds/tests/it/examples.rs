//! The samples that people copy are admitted, every kind is among them, and their digests are those of the files they name.

use std::collections::BTreeSet;
use std::path::Path;

use ballast_crds::definitions;
use ballast_crds::validate::Admission;
use serde_json::Value;

#[test]
fn every_sample_is_admitted_and_every_kind_has_one() {
    let admission = Admission::default();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut kinds = BTreeSet::new();
    for entry in std::fs::read_dir(examples.join("kubernetes")).unwrap() {
        let path = entry.unwrap().path();
        let object: Value = serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        if let Err(refused) = admission.admit(&object, None) {
            panic!("{}: {refused}", path.display());
        }
        kinds.insert(object["kind"].as_str().unwrap().to_owned());
        for (pointer, file) in [
            ("/spec/model/source/digest", "digits/models/digits-1.0.0.onnx"),
            ("/spec/verification/golden/source/digest", "digits/golden.safetensors"),
        ] {
            if let Some(digest) = object.pointer(pointer) {
                let file = std::fs::read(examples.join(file)).unwrap();
                assert_eq!(*digest, ballast_bundle::Digest::of(&file).to_string(), "{}{pointer}", path.display());
            }
        }
    }
    let all: BTreeSet<_> = definitions().into_iter().map(|definition| definition.spec.names.kind).collect();
    assert_eq!(kinds, all);
}
