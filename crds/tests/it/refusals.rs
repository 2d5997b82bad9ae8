//! Every rule, refused with its words; and that what is right passes.

use ballast_crds::validate::Admission;
use serde_json::{Value, json};

use crate::wrong::{self, deployment, other, with};

fn refusal(object: &Value, old: Option<&Value>) -> String {
    match Admission::default().admit(object, old) {
        Ok(_) => "ACCEPTED".to_owned(),
        Err(refused) => refused.to_string(),
    }
}

#[test]
fn defaults_are_filled_in() {
    let admitted = Admission::default().admit(&deployment(), None).unwrap();
    insta::assert_json_snapshot!(admitted["spec"]);
}

#[test]
fn a_wrong_object_is_refused_with_what_to_write() {
    let cases = wrong::objects();
    let said: Vec<_> = cases.iter().map(|case| refusal(case, None)).collect();
    for (case, said) in cases.iter().zip(&said) {
        assert_ne!(said, "ACCEPTED", "{case}");
        assert!(!said.contains("client-side") && !said.contains("CEL"), "{said}: {case}");
    }
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn what_is_right_passes() {
    for steps in [
        json!([{"gateways": "100%"}]),
        json!([{"gateways": 1}, {"gateways": 5}, {"gateways": "0.5%"}, {"gateways": "9%"}, {"gateways": "100%"}]),
        json!([{"gateways": "10%"}, {"gateways": 500}, {"gateways": "100%"}]),
    ] {
        let object = with("/spec/rollout", json!({"steps": steps, "soak": "2s", "silenceDeadline": "1h30m"}));
        assert_eq!(refusal(&object, None), "ACCEPTED");
    }
    for labels in [json!({"plant.example/line": "bottling-3"}), json!({"a": "", "B_c.d": "E"})] {
        assert_eq!(refusal(&with("/spec/gatewaySelector", json!({"matchLabels": labels})), None), "ACCEPTED");
        assert_eq!(refusal(&other("Gateway", "gw-1", json!({"labels": labels})), None), "ACCEPTED");
    }
    let variants = json!([{"name": "int8", "source": {"uri": "https://models.example/d.onnx", "digest": format!("sha256:{}", "a".repeat(64))}}, {"name": "fp32", "fromModel": true}]);
    assert_eq!(refusal(&with("/spec/model/variants", variants), None), "ACCEPTED");
}

#[test]
fn what_cannot_change_is_refused_on_update_only() {
    let admission = Admission::default();
    let admit = |object: &Value| admission.admit(object, None).unwrap();
    let said: Vec<_> =
        wrong::changes().iter().map(|(before, after)| refusal(&admit(after), Some(&admit(before)))).collect();
    insta::assert_snapshot!(said.join("\n"));
    for (before, _) in wrong::changes() {
        assert_eq!(refusal(&admit(&before), Some(&admit(&before))), "ACCEPTED");
    }
    let gateway = |state: &str| admit(&other("Gateway", "gw-1", json!({"state": state})));
    assert_eq!(refusal(&gateway("Revoked"), Some(&gateway("Retired"))), "ACCEPTED");
}
