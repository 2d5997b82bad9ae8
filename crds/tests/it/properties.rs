//! Quantities mean the same to the schema's rules and to the parsers, and nothing makes admission stumble.

use ballast_crds::validate::Admission;
use ballast_crds::{ByteQuantity, Decimal, Share, Span};
use proptest::prelude::*;
use serde_json::{Value, json};

fn deployment(soak: &str, absolute: &str, share: &str) -> Value {
    let source = json!({"uri": "file:///m", "digest": format!("sha256:{}", "0".repeat(64))});
    json!({
        "apiVersion": "ballast.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": "digits"},
        "spec": {
            "model": {"version": "1", "source": source},
            "gatewaySelector": {"matchLabels": {"line": "a"}},
            "rollout": {"soak": soak},
            "verification": {
                "tolerance": {"absolute": absolute},
                "golden": {"source": source, "minMatching": share},
            },
        },
    })
}

fn target(memory: &str) -> Value {
    json!({"apiVersion": "ballast.dev/v1alpha1", "kind": "HardwareTarget", "metadata": {"name": "box"},
        "spec": {"triple": "pulley64", "memory": memory}})
}

/// Any small JSON.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".{0,8}", inner, 0..4).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

thread_local! {
    static ADMISSION: Admission = Admission::default();
}

fn admitted(object: &Value) -> bool {
    ADMISSION.with(|admission| admission.admit(object, None).is_ok())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rule_and_parser_agree_on_bytes(text in "[0-9]{0,17}(Ki|Mi|Gi|Ti|B|k)?") {
        prop_assert_eq!(admitted(&target(&text)), ByteQuantity(text).bytes().is_ok());
    }

    #[test]
    fn rule_and_parser_agree_on_spans(text in "([0-9]{0,10}(ms|s|m|h|d)?){0,4}") {
        prop_assert_eq!(admitted(&deployment(&text, "1", "95%")), Span(text).millis().is_ok());
    }

    #[test]
    fn rule_and_parser_agree_on_numbers(text in "[0-9]{0,10}([.][0-9]{0,13})?(e-?[0-9]{0,3})?") {
        prop_assert_eq!(admitted(&deployment("1s", &text, "95%")), Decimal(text).value().is_ok());
    }

    #[test]
    fn rule_and_parser_agree_on_shares(text in "(100|[0-9]{0,3})([.][0-9]{0,2})?%?") {
        // A share of nothing is a share, and refused for what it would mean here.
        let means = Share(text.clone()).per_mille().is_ok_and(|share| share > 0);
        prop_assert_eq!(admitted(&deployment("1s", "1", &text)), means);
    }

    #[test]
    fn spans_add_up(hours in 0u64..1000, minutes in 0u64..1000, millis in 0u64..1000) {
        let span = Span(format!("{hours}h{minutes}m{millis}ms"));
        prop_assert_eq!(span.millis(), Ok(hours * 3_600_000 + minutes * 60_000 + millis));
    }

    #[test]
    fn any_object_gets_an_answer(
        kind in prop::sample::select(&["ModelDeployment", "HardwareTarget", "EnrollmentToken", "Gateway", "Pod"][..]),
        spec in any_json(),
        metadata in any_json(),
    ) {
        let object = json!({"apiVersion": "ballast.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec});
        prop_assert!(!admitted(&object), "{}", object);
    }

    #[test]
    fn any_field_of_a_good_object_may_be_anything(
        at in prop::sample::select(&["/spec", "/spec/model", "/spec/model/source", "/spec/rollout", "/spec/rollout/soak", "/spec/gatewaySelector/matchLabels/line", "/spec/verification/golden"][..]),
        value in any_json(),
    ) {
        let mut object = deployment("1s", "1", "95%");
        *object.pointer_mut(at).unwrap() = value;
        let _ = admitted(&object);
    }
}
