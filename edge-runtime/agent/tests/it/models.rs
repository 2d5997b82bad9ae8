//! Bundles of the digits models and of damaged ones, compiled once per test run.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock};

use ballast_bundle::{Contract, GoldenMatch, Tolerance, Verification};
use ballast_compiler::{
    Artifacts, CompileOutcome, CompileRequest, InputOverride, InputPadding, RuntimeLimits, TargetSpec,
};
use ballast_sandbox::EngineProfile;

pub(crate) const TARGET: &str = "x86-64";

pub(crate) fn example(name: &str) -> Vec<u8> {
    let path = format!("{}/../../examples/digits/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Native code of the runner for this machine's baseline.
pub(crate) fn runner() -> (&'static EngineProfile, &'static [u8]) {
    static RUNNER: OnceLock<(EngineProfile, Vec<u8>)> = OnceLock::new();
    let (profile, code) = RUNNER.get_or_init(|| {
        let profile = EngineProfile::host();
        let code = ballast_aot::precompile(ballast_aot::runner_for(&profile), &profile).unwrap();
        (profile, code)
    });
    (profile, code)
}

/// `digits-VERSION.onnx` as a bundle.
pub(crate) fn digits(version: &str) -> Artifacts {
    static DONE: OnceLock<Mutex<BTreeMap<String, Artifacts>>> = OnceLock::new();
    let mut done = DONE.get_or_init(Default::default).lock().unwrap();
    done.entry(version.to_owned()).or_insert_with(|| compile(version)).clone()
}

/// The plan of digits 1.0.0, its output renamed from `scores` to `labels`.
pub(crate) fn plan_with_labels() -> Vec<u8> {
    let renamed = |mut bytes: Vec<u8>| {
        let places: Vec<usize> = (0..bytes.len()).filter(|n| bytes[*n..].starts_with(b"scores")).collect();
        assert!(!places.is_empty());
        places.into_iter().for_each(|at| bytes[at..at + 6].copy_from_slice(b"labels"));
        bytes
    };
    compile_from("1.0.0", renamed(example("models/digits-1.0.0.onnx")), renamed(example("golden.safetensors"))).plan
}

/// `double` is twice `x [1, n]`, and `sum` that of `x` where `mask [1, n]` is 1; for 4, 8 or 16 numbers, shorter ones filled up.
pub(crate) fn bucketed() -> Artifacts {
    use crate::writer::{Dim, Graph, floats, node, value};
    let input = |name: &str| value(name, 1, &[Dim::Is(1), Dim::Open("n")]);
    let axis = [vec![8, 1, 16, 7, 66, 4], b"axis".to_vec(), vec![74, 8], 1i64.to_le_bytes().to_vec()].concat();
    let model = Graph {
        nodes: vec![
            node("Mul", &["x", "two"], &["double"], &[]),
            node("Mul", &["x", "mask"], &["real"], &[]),
            node("ReduceSum", &["real", "axis"], &["sum"], &[]),
        ],
        constants: vec![floats("two", &[1], &[2.0]), axis],
        inputs: vec![input("x"), input("mask")],
        outputs: vec![value("double", 1, &[]), value("sum", 1, &[])],
    };
    let shapes = |name: &str, padding| InputOverride {
        name: name.into(),
        shapes: [8, 4, 16].map(|n| vec![1, n]).to_vec(),
        padding,
        ..InputOverride::default()
    };
    let padding = InputPadding { mask: "mask".into(), value: 9 };
    let inputs = vec![shapes("x", Some(padding)), shapes("mask", None)];
    let request = CompileRequest { golden: None, ..request_for("1.0.0", model.model(), None, inputs) };
    build(&request)
}

/// Digits 1.0.0 as it would be with an open batch, taken by up to 64 images at once.
pub(crate) fn batched() -> Artifacts {
    // Only the first of the input's dimensions, [1, 1, 8, 8], becomes an open one.
    let fixed = *b"\x0a\x02\x08\x01\x0a\x02\x08\x01\x0a\x02\x08\x08\x0a\x02\x08\x08";
    let mut model = example("models/digits-1.0.0.onnx");
    let at = model.windows(fixed.len()).position(|w| w == fixed).unwrap();
    model[at + 2..at + 4].copy_from_slice(b"\x12\x00");
    let rows = InputOverride { name: "image".into(), batch_axis: Some(0), ..InputOverride::default() };
    compile_with("1.0.0", model, Some(example("golden.safetensors")), vec![rows])
}

fn compile(version: &str) -> Artifacts {
    compile_from(version, example(&format!("models/digits-{version}.onnx")), example("golden.safetensors"))
}

fn compile_from(version: &str, model: Vec<u8>, golden: Vec<u8>) -> Artifacts {
    compile_with(version, model, Some(golden), Vec::new())
}

/// A model under the name of digits; without golden vectors it is held to its own.
pub(crate) fn compile_with(
    version: &str,
    model: Vec<u8>,
    golden: Option<Vec<u8>>,
    inputs: Vec<InputOverride>,
) -> Artifacts {
    build(&request_for(version, model, golden, inputs))
}

fn request_for(version: &str, model: Vec<u8>, golden: Option<Vec<u8>>, inputs: Vec<InputOverride>) -> CompileRequest {
    let profile = EngineProfile::host();
    CompileRequest {
        model,
        model_name: "digits".to_owned(),
        version: version.to_owned(),
        variant: "fp32".to_owned(),
        target: TargetSpec {
            name: TARGET.parse().unwrap(),
            triple: profile.triple,
            cpu_features: profile.cpu_features,
            memory_bytes: 1 << 30,
            deny: Vec::new(),
            gflops: 0.0,
            memory_bandwidth: 0.0,
        },
        inputs,
        runtime: RuntimeLimits {
            memory_limit: 64 << 20,
            deadline_millis: Some(5_000),
            instances: 1,
            max_queue: 16,
            ..RuntimeLimits::default()
        },
        verification: Verification {
            golden_match: if golden.is_some() { GoldenMatch::ArgMax } else { GoldenMatch::Values },
            min_matching_per_mille: 900,
            tolerance: Tolerance { absolute: 1e-4, relative: 1e-3 },
            finite_outputs: true,
            max_latency_p99_millis: None,
            user_golden: golden.is_some(),
        },
        golden,
    }
}

fn build(request: &CompileRequest) -> Artifacts {
    match ballast_compiler::compile(request) {
        CompileOutcome::Built(artifacts) => *artifacts,
        CompileOutcome::Refused(verdict) => panic!("{}: {}", request.version, verdict.message),
    }
}

/// The same bundle with other words in its contract.
pub(crate) fn with_contract(mut artifacts: Artifacts, change: impl FnOnce(&mut Contract)) -> Artifacts {
    let mut contract: Contract = serde_json::from_slice(&artifacts.contract).unwrap();
    change(&mut contract);
    artifacts.contract = serde_json::to_vec(&contract).unwrap();
    artifacts
}

/// Images of the demo's traffic and what ONNX Runtime answers to them.
pub(crate) struct Live {
    bytes: Vec<u8>,
    header: serde_json::Value,
    start: usize,
}

impl Live {
    pub(crate) fn load() -> Self {
        let bytes = example("live.safetensors");
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        Self { header: serde_json::from_slice(&bytes[8..8 + length]).unwrap(), start: 8 + length, bytes }
    }

    fn tensor(&self, name: &str) -> &[u8] {
        let offsets = &self.header[name]["data_offsets"];
        let at = |n: usize| self.start + offsets[n].as_u64().unwrap() as usize;
        &self.bytes[at(0)..at(1)]
    }

    pub(crate) fn len(&self) -> usize {
        self.tensor("images").len() / 256
    }

    /// One image: 64 floats, little-endian.
    pub(crate) fn image(&self, n: usize) -> &[u8] {
        &self.tensor("images")[n * 256..(n + 1) * 256]
    }

    pub(crate) fn expected(&self, version: &str, n: usize) -> Vec<f32> {
        let all = self.tensor(&format!("expected/{version}"));
        all[n * 40..(n + 1) * 40].chunks_exact(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect()
    }

    pub(crate) fn is_blank(&self, n: usize) -> bool {
        self.image(n).chunks_exact(4).all(|c| f32::from_le_bytes(c.try_into().unwrap()) == 0.0)
    }

    pub(crate) fn blank(&self) -> usize {
        (0..self.len()).find(|n| self.is_blank(*n)).unwrap()
    }
}
