//! Golden vectors: what is compared, how strictly, and what a person reads when it fails.

use ballast_bundle::golden::{Golden, GoldenError, MAX_GOLDEN_BYTES, Tally, write};
use ballast_bundle::*;

use crate::world::{World, golden_file};

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// A contract with one output of two scores.
fn contract(edit: impl FnOnce(&mut Contract)) -> Contract {
    let mut contract = World::good().contract;
    edit(&mut contract);
    contract
}

/// Judges three vectors' scores against the good world's golden file (expected 0.9/0.1, 0.2/0.8, 0.7/0.3).
fn judge(contract: &Contract, scores: [[f32; 2]; 3]) -> Result<(), String> {
    let golden = Golden::of_bundle(&golden_file([0, 1, 0]), contract).unwrap();
    let mut tally = Tally::default();
    for (i, scores) in scores.iter().enumerate() {
        tally.add(golden.check(i, &[(&contract.outputs[0], &floats(scores))], contract));
    }
    tally.judge(contract)
}

const RIGHT: [[f32; 2]; 3] = [[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]];

#[test]
fn what_is_within_tolerance_passes_and_what_is_not_is_named() {
    let values = contract(|c| c.verification.golden_match = GoldenMatch::Values);
    assert_eq!(judge(&values, RIGHT), Ok(()));
    // 1e-4 + 1e-3 · 0.8
    assert_eq!(judge(&values, [[0.9, 0.1], [0.2, 0.80089], [0.7, 0.3]]), Ok(()));
    assert_eq!(
        judge(&values, [[0.9, 0.1], [0.2, 0.802], [0.7, 0.3]]).unwrap_err(),
        "2 of 3 golden vectors are reproduced within tolerance, all are needed; the first that fails: vector 1, output \"scores\": element 1 is 0.8019999861717224, expected 0.800000011920929"
    );
}

#[test]
fn labels_are_compared_when_the_user_gave_labels() {
    let labels = contract(|c| {
        c.verification.tolerance = Tolerance { absolute: 10.0, relative: 0.0 };
        c.verification.min_matching_per_mille = 955;
    });
    assert_eq!(judge(&labels, [[0.6, 0.4], [0.4, 0.6], [0.6, 0.4]]), Ok(()));
    assert_eq!(
        judge(&labels, [[0.4, 0.6], [0.4, 0.6], [0.6, 0.4]]).unwrap_err(),
        "2 of 3 golden vectors have the right label, 95.5 % are needed; the first that fails: vector 0, output \"scores\": label 0 expected, 1 found"
    );
    let two_thirds = contract(|c| {
        c.verification.tolerance = Tolerance { absolute: 10.0, relative: 0.0 };
        c.verification.min_matching_per_mille = 666;
    });
    assert_eq!(judge(&two_thirds, [[0.4, 0.6], [0.4, 0.6], [0.6, 0.4]]), Ok(()));
    // The reference evaluator's values must be met although the label is right.
    assert!(judge(&contract(|_| ()), [[0.6, 0.4], [0.2, 0.8], [0.7, 0.3]]).unwrap_err().contains("within tolerance"));
}

#[test]
fn nan_has_no_label_and_equals_only_itself() {
    let nan = f32::NAN;
    assert!(judge(&contract(|_| ()), [[nan, 0.1], [0.2, 0.8], [0.7, 0.3]]).unwrap_err().contains("none (NaN) found"));
    let values = contract(|c| c.verification.golden_match = GoldenMatch::Values);
    assert!(judge(&values, [[nan, 0.1], [0.2, 0.8], [0.7, 0.3]]).unwrap_err().contains("element 0 is NaN"));
}

/// One vector of any type against one expected one.
fn compare(datatype: DataType, actual: &[u8], expected: &[u8], tolerance: f64) -> bool {
    let n = (expected.len() / datatype.size()) as u64;
    let contract = contract(|c| {
        c.outputs[0].datatype = datatype;
        c.outputs[0].shape = vec![n];
        c.verification.golden_match = GoldenMatch::Values;
        c.verification.tolerance = Tolerance { absolute: 0.0, relative: tolerance };
    });
    let file = write(&[
        ("inputs/image".into(), DataType::Fp32, vec![1, 1, 2], &[0; 8]),
        ("outputs/scores".into(), datatype, vec![1, n], expected),
    ]);
    let golden = Golden::of_bundle(&file, &contract).unwrap();
    let mut tally = Tally::default();
    tally.add(golden.check(0, &[(&contract.outputs[0], actual)], &contract));
    tally.judge(&contract).is_ok()
}

#[test]
fn infinities_nan_and_large_integers_are_told_apart() {
    let one = |x: f32| floats(&[x]);
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    for (actual, expected, equal) in [
        (1.0, inf, false),
        (-inf, inf, false),
        (inf, inf, true),
        (inf, 1.0, false),
        (nan, nan, true),
        (nan, 1.0, false),
        (1.0, nan, false),
        (nan, inf, false),
        (1.0005, 1.0, true),
        (1.002, 1.0, false),
        (0.0, -0.0, true),
    ] {
        assert_eq!(compare(DataType::Fp32, &one(actual), &one(expected), 1e-3), equal, "{actual} for {expected}");
    }
    let large = |x: i64| x.to_le_bytes();
    assert!(compare(DataType::Int64, &large(i64::MIN), &large(i64::MIN), 0.0));
    assert!(!compare(DataType::Int64, &large(i64::MAX), &large(i64::MAX - 1), 0.0));
    assert!(!compare(DataType::Int64, &large(i64::MIN), &large(i64::MAX), 1.5));
    assert!(!compare(DataType::Uint64, &[255; 8], &[254; 8], 1e-3));
    assert!(!compare(DataType::Fp32, &[0; 4], &[0; 8], 1.0), "a short output");
}

#[test]
fn an_output_that_is_not_there_is_wrong() {
    let contract = contract(|_| ());
    let golden = Golden::of_bundle(&golden_file([0, 1, 0]), &contract).unwrap();
    let mut tally = Tally::default();
    tally.add(golden.check(0, &[], &contract));
    assert!(tally.judge(&contract).unwrap_err().ends_with("vector 0, output \"scores\": there is none"));
    assert!(Tally::default().judge(&contract).is_err(), "nothing run is nothing proved");
}

#[test]
fn a_users_file_may_have_labels_only_and_gets_outputs_from_the_evaluator() {
    let contract = contract(|_| ());
    let labels: Vec<u8> = [1i64, 0].iter().flat_map(|l| l.to_le_bytes()).collect();
    let users = write(&[
        ("inputs/image".into(), DataType::Fp32, vec![2, 1, 2], &floats(&[1.0, 2.0, 3.0, 4.0])),
        ("labels/scores".into(), DataType::Int64, vec![2], &labels),
    ]);
    let golden = Golden::parse(&users, &contract.inputs, &contract.outputs).unwrap();
    assert_eq!(golden.input(1, "image"), Some(floats(&[3.0, 4.0]).as_slice()));
    assert_eq!(golden.input(2, "image"), None);
    assert_eq!((golden.label(0, "scores"), golden.has_values("scores")), (Some(1), false));
    assert!(matches!(Golden::of_bundle(&users, &contract), Err(GoldenError::Missing(_))));
    let full = golden.with_outputs(&contract, &[floats(&[0.1, 0.9, 0.8, 0.2])]);
    let golden = Golden::of_bundle(&full, &contract).unwrap();
    assert_eq!(golden.output(1, "scores"), Some(floats(&[0.8, 0.2]).as_slice()));
    assert_eq!((golden.len(), golden.label(0, "scores")), (2, Some(1)));
    assert_eq!(golden.with_outputs(&contract, &[floats(&[0.1, 0.9, 0.8, 0.2])]), full);
}

/// A user's file of three vectors with numbers and without labels.
fn users_numbers(scores: [[f32; 2]; 3]) -> Vec<u8> {
    write(&[
        ("inputs/image".into(), DataType::Fp32, vec![3, 1, 2], &[0; 24]),
        ("outputs/scores".into(), DataType::Fp32, vec![3, 1, 2], &floats(&scores.concat())),
    ])
}

/// What the user's file says of a model that computes `RIGHT`, and what the bundle made from it says of a gateway that
/// computes `found`.
fn judge_users(contract: &Contract, users: &[u8], found: [[f32; 2]; 3]) -> (Result<(), String>, Result<(), String>) {
    let golden = Golden::parse(users, &contract.inputs, &contract.outputs).unwrap();
    let (mut model, mut gateway) = (Tally::default(), Tally::default());
    let shipped = golden.with_outputs(contract, &[floats(&RIGHT.concat())]);
    let bundle = Golden::of_bundle(&shipped, contract).unwrap();
    for (i, (right, found)) in RIGHT.iter().zip(found).enumerate() {
        let spec = &contract.outputs[0];
        model.add(golden.check_users(i, &[(spec, &floats(right))], contract));
        gateway.add(bundle.check(i, &[(spec, &floats(&found))], contract));
    }
    (model.judge_users(contract), gateway.judge(contract))
}

#[test]
fn the_users_numbers_judge_the_model_and_the_evaluators_every_gateway() {
    let asks = |per_mille| {
        contract(|c| {
            c.verification.golden_match = GoldenMatch::Values;
            c.verification.min_matching_per_mille = per_mille;
        })
    };
    // The model is off in one of three, which the user allows; no gateway may be off in any.
    let users = users_numbers([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]]);
    assert_eq!(judge_users(&asks(660), &users, RIGHT), (Ok(()), Ok(())));
    let (model, _) = judge_users(&asks(670), &users, RIGHT);
    assert!(model.unwrap_err().contains("2 of 3 golden vectors are reproduced within tolerance, 67 % are needed"));
    let (_, gateway) = judge_users(&asks(660), &users, [[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]]);
    assert!(
        gateway.unwrap_err().contains("all are needed"),
        "as the user wrote it, and not as the plan should compute"
    );
}

#[test]
fn with_labels_to_decide_the_users_numbers_are_no_promise() {
    // Other numbers, the same largest; no labels, so the largest is what is asked for.
    let users = users_numbers([[9.0, 1.0], [2.0, 8.0], [7.0, 3.0]]);
    assert_eq!(judge_users(&contract(|_| ()), &users, RIGHT), (Ok(()), Ok(())));
    let golden = Golden::parse(&users, &contract(|_| ()).inputs, &contract(|_| ()).outputs).unwrap();
    let shipped = golden.with_outputs(&contract(|_| ()), &[floats(&RIGHT.concat())]);
    let shipped = Golden::of_bundle(&shipped, &contract(|_| ())).unwrap();
    let labels: Vec<_> = (0..3).map(|i| shipped.label(i, "scores")).collect();
    assert_eq!(labels, [Some(0), Some(1), Some(0)], "the labels outlive the numbers that implied them");
    // A largest that is not there is not met.
    let (model, _) = judge_users(&contract(|_| ()), &users_numbers([[f32::NAN, 1.0], [2.0, 8.0], [7.0, 3.0]]), RIGHT);
    assert!(model.unwrap_err().ends_with("output \"scores\": a label cannot be expected of NaN"));
    // Both: the labels decide, the numbers are not looked at.
    let labels: Vec<u8> = [0i64, 1, 0].iter().flat_map(|l| l.to_le_bytes()).collect();
    let both = write(&[
        ("inputs/image".into(), DataType::Fp32, vec![3, 1, 2], &[0; 24]),
        ("outputs/scores".into(), DataType::Fp32, vec![3, 1, 2], &[0; 24]),
        ("labels/scores".into(), DataType::Int64, vec![3], &labels),
    ]);
    assert_eq!(judge_users(&contract(|_| ()), &both, RIGHT), (Ok(()), Ok(())));
}

#[test]
fn asking_for_none_asks_for_one() {
    let none = contract(|c| {
        c.verification.golden_match = GoldenMatch::Values;
        c.verification.min_matching_per_mille = 0;
    });
    let (model, _) = judge_users(&none, &users_numbers([[5.0; 2]; 3]), RIGHT);
    assert!(model.is_err());
}

#[test]
fn a_file_must_be_able_to_judge() {
    let two = contract(|c| {
        c.outputs.push(TensorSpec { name: "boxes".into(), datatype: DataType::Fp32, shape: vec![2, 2] });
    });
    let one_of_two = Golden::parse(&golden_file([0, 1, 0]), &two.inputs, &two.outputs).unwrap_err();
    assert_eq!(one_of_two.to_string(), "the golden file has neither outputs/boxes nor labels/boxes");
    let boxes = contract(|c| c.outputs[0].shape = vec![2, 2]);
    let numbers = write(&[
        ("inputs/image".into(), DataType::Fp32, vec![1, 1, 2], &[0; 8]),
        ("outputs/scores".into(), DataType::Fp32, vec![1, 2, 2], &[0; 16]),
    ]);
    let golden = Golden::parse(&numbers, &boxes.inputs, &boxes.outputs).unwrap();
    assert_eq!(golden.can_judge(&boxes), Err(GoldenError::NoLabel));
    let values = Contract {
        verification: Verification { golden_match: GoldenMatch::Values, ..boxes.verification.clone() },
        ..boxes
    };
    assert_eq!(golden.can_judge(&values), Ok(()));
    let labels: Vec<u8> = [1i64, 0].iter().flat_map(|l| l.to_le_bytes()).collect();
    let labels = write(&[
        ("inputs/image".into(), DataType::Fp32, vec![2, 1, 2], &floats(&[1.0, 2.0, 3.0, 4.0])),
        ("labels/scores".into(), DataType::Int64, vec![2], &labels),
    ]);
    let values = contract(|c| c.verification.golden_match = GoldenMatch::Values);
    let golden = Golden::parse(&labels, &values.inputs, &values.outputs).unwrap();
    assert_eq!(golden.can_judge(&values), Err(GoldenError::Missing("outputs/scores".into())));
}

/// A file whose header is this JSON.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

#[test]
fn files_that_are_not_what_they_should_be_are_refused() {
    let contract = contract(|_| ());
    let error = |bytes: &[u8]| Golden::parse(bytes, &contract.inputs, &contract.outputs).unwrap_err().to_string();
    let tensor = |name: &str, shape: &str, at: &str| {
        format!(r#""{name}":{{"dtype":"F32","shape":{shape},"data_offsets":{at}}}"#)
    };
    let image = tensor("inputs/image", "[1,1,2]", "[0,8]");
    let scores = tensor("outputs/scores", "[1,1,2]", "[8,16]");
    assert!(
        Golden::parse(&file(&format!("{{{image},{scores}}}"), &[0; 16]), &contract.inputs, &contract.outputs).is_ok()
    );
    for (bytes, sentence) in [
        (vec![], "less than 8 bytes"),
        (vec![255; 9], "claims more than 256 KiB"),
        (100u64.to_le_bytes().to_vec(), "cut off"),
        (file("[]", &[]), "not JSON of distinct tensors"),
        (file(&"[".repeat(100_000), &[]), "not JSON of distinct tensors"),
        (file("{}", &[]), "1 to 4096 vectors, it has 0"),
        (file(&format!("{{{image},{image}}}"), &[0; 8]), "not JSON of distinct tensors"),
        (file(&format!("{{{image},{scores}}}"), &[0; 15]), "do not end where the file does"),
        (file(&format!("{{{image},{scores}}}"), &[0; 17]), "do not end where the file does"),
        (file(&format!("{{{image},{}}}", tensor("outputs/scores", "[1,1,2]", "[4,12]")), &[0; 16]), "holes or overlap"),
        (
            file(&format!("{{{image},{}}}", tensor("outputs/scores", "[1,1,2]", "[12,20]")), &[0; 20]),
            "holes or overlap",
        ),
        (
            file(&format!("{{{image},{}}}", tensor("outputs/scores", "[1,2]", "[8,16]")), &[0; 16]),
            "should be F32 [N, [1, 2]]",
        ),
        (
            file(&format!("{{{image},{}}}", tensor("outputs/boxes", "[1,1,2]", "[8,16]")), &[0; 16]),
            "belongs to no input or output",
        ),
        (
            file(&format!("{{{image},{}}}", tensor("secrets", "[1,1,2]", "[8,16]")), &[0; 16]),
            "belongs to no input or output",
        ),
        (
            file(&format!("{{{image},{}}}", tensor("outputs/scores", "[2,1,2]", "[8,24]")), &[0; 24]),
            "1 to 4096 vectors, it has 2",
        ),
        (file(&format!("{{{}}}", tensor("inputs/image", "[18446744073709551615,1,2]", "[0,8]")), &[0; 8]), "1 to 4096"),
        (file(&format!("{{{image}}}"), &[0; 8]), "neither outputs/scores nor labels/scores"),
        (file(&format!("{{{}}}", tensor("outputs/scores", "[1,1,2]", "[0,8]")), &[0; 8]), "no tensor \"inputs/image\""),
        (vec![0; MAX_GOLDEN_BYTES + 1], "at most 16777216 are allowed"),
    ] {
        let error = error(&bytes);
        assert!(error.contains(sentence), "{error:?} should say {sentence:?}");
    }
    let rows = vec![TensorSpec { shape: vec![2, 2], ..contract.outputs[0].clone() }];
    let labelled = golden_file([0, 1, 0]);
    assert!(Golden::parse(&labelled, &contract.inputs, &rows).is_err(), "one label for two rows");
}

#[test]
fn allowances_that_nothing_could_meet_are_refused_where_the_contract_is_read() {
    let good = serde_json::to_value(contract(|_| ())).unwrap();
    let read = |field: &str, value: serde_json::Value| {
        let mut json = good.clone();
        *json.pointer_mut(field).unwrap() = value;
        serde_json::from_value::<Contract>(json).map(|_| ()).map_err(|e| e.to_string())
    };
    assert_eq!(read("/verification/tolerance/absolute", 0.into()), Ok(()));
    for field in ["absolute", "relative"] {
        let refused = read(&format!("/verification/tolerance/{field}"), (-1e7).into());
        assert_eq!(refused.unwrap_err(), "a tolerance is 0 or more, not -10000000");
    }
    assert_eq!(
        read("/verification/minMatchingPerMille", 1001.into()).unwrap_err(),
        "a share is 0 to 1000 per mille, not 1001"
    );
}
