//! Any bytes as a model, with any options: an answer comes, in bounded time and memory. What is taken for a model is lowered to
//! a plan that our own reader takes, and where that is little work it is evaluated and the plan gives answers of the same kind.
//!
//! `{"inputs": […], "deny": […]}`, a zero byte, the model: the options as a deployment's `model.inputs` and a target's
//! `operators.deny` have them. Without a `{` in front, all is the model (or a tar archive with one), and there are no options.
#![no_main]

use ballast_bundle::{Contract, GoldenMatch, Tolerance, Verification};
use ballast_compiler::ir::{DType, Graph, Tensor, ValueId};
use ballast_compiler::{CompileOutcome, CompileRequest, InputOverride, RuntimeLimits, TargetSpec};
use ballast_compiler::{check, compile, cost, eval, import, lower};
use ballast_plan::Plan;
use libfuzzer_sys::fuzz_target;

/// Work in operations, and bytes held, that a model may ask for and still be evaluated.
const MOST: u64 = 1 << 22;

#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    inputs: Vec<InputOverride>,
    deny: Vec<String>,
}

fn target(deny: Vec<String>) -> TargetSpec {
    TargetSpec {
        name: "x86-64".parse().expect("a name"),
        triple: "x86_64-unknown-linux-musl".into(),
        cpu_features: vec![],
        memory_bytes: 1 << 30,
        deny,
        gflops: 10.0,
        memory_bandwidth: 1e9,
    }
}

fn request(model: &[u8], options: Options) -> CompileRequest {
    CompileRequest {
        model: model.to_vec(),
        model_name: "case".into(),
        version: "0".into(),
        variant: "fp32".into(),
        target: target(options.deny),
        inputs: options.inputs,
        runtime: RuntimeLimits {
            memory_limit: 1 << 29,
            deadline_millis: None,
            instances: 1,
            max_queue: 1,
            ..RuntimeLimits::default()
        },
        verification: Verification {
            golden_match: GoldenMatch::Values,
            min_matching_per_mille: 1000,
            tolerance: Tolerance { absolute: 1e-4, relative: 1e-3 },
            finite_outputs: false,
            max_latency_p99_millis: None,
            user_golden: false,
        },
        golden: None,
    }
}

fn input(graph: &Graph, id: ValueId) -> Tensor {
    let value = graph.value(id);
    if value.dtype == DType::F32 {
        let odd = [0.0, -0.0, 1.5, -7.25, 3e38, f32::INFINITY, f32::NAN, 1e-40];
        return Tensor::f32(value.shape.clone(), odd.iter().copied().cycle().take(value.len()).collect());
    }
    let bytes: Vec<u8> =
        [0, 1, 255, 128, 7, 64, 2].into_iter().cycle().take(value.len() * value.dtype.size()).collect();
    Tensor::from_bytes(value.dtype, value.shape.clone(), &bytes).expect("as long as it says")
}

/// Whether it is little work to run.
fn is_small(graph: &Graph) -> bool {
    let held: u64 = graph.values.iter().map(|v| v.len() as u64 * 8).fold(0, u64::saturating_add);
    held <= MOST && cost::cost(graph).flop <= MOST
}

fn model(request: &CompileRequest) {
    let graph = match import::import(&request.model, &request.inputs, &request.target.deny) {
        Ok(imported) => imported.graph,
        Err(findings) => {
            assert!(!findings.message().is_empty(), "a refusal says why");
            return;
        }
    };
    let lowered = lower::lower(&graph, &request.target);
    assert!(!matches!(lowered, Err(lower::LowerError::Plan(_))), "{lowered:?}");
    if !is_small(&graph) {
        return;
    }
    let inputs: Vec<Tensor> = graph.inputs.iter().map(|id| input(&graph, *id)).collect();
    let outputs = eval::evaluate(&graph, &inputs).expect("inputs fit");
    assert!(outputs.iter().zip(&graph.outputs).all(|(t, id)| t.len() == graph.value(*id).len()));
    let Ok(lowered) = lowered else { return };
    let plan = Plan::parse(&lowered.plan).expect("it was read when it was written");
    let lengths = |ids: &[ValueId]| ids.iter().map(|id| tensor_bytes(&graph, *id)).collect::<Vec<_>>();
    let entry = plan.entries().next().expect("an entry");
    let places = |tensors: &mut dyn Iterator<Item = ballast_plan::Tensor<'_>>| {
        tensors.map(|t| t.bytes().expect("checked")).collect::<Vec<_>>()
    };
    assert_eq!(places(&mut entry.inputs()), lengths(&graph.inputs));
    assert_eq!(places(&mut entry.outputs()), lengths(&graph.outputs));
}

fn tensor_bytes(graph: &Graph, id: ValueId) -> u64 {
    let value = graph.value(id);
    (value.len() * value.dtype.size()) as u64
}

/// The verdict of a model with options, and what is built of it.
fn whole(request: &CompileRequest) {
    let verdict = check(request);
    assert!(!verdict.message.is_empty(), "a verdict says why");
    let small = import::import(&request.model, &request.inputs, &request.target.deny).is_ok_and(|i| is_small(&i.graph));
    if !verdict.fits || !small {
        return;
    }
    match compile(request) {
        CompileOutcome::Built(built) => {
            let contract: Contract = serde_json::from_slice(&built.contract).expect("a contract is read back");
            assert!(contract.limits.deadline_millis > 0);
            Plan::parse(&built.plan).expect("a plan is read back");
        }
        CompileOutcome::Refused(verdict) => assert!(!verdict.message.is_empty()),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let split = bytes.first().filter(|b| **b == b'{').and_then(|_| bytes.iter().position(|b| *b == 0));
    let Some(at) = split else { return model(&request(bytes, Options::default())) };
    let Ok(options) = serde_json::from_slice::<Options>(&bytes[..at]) else { return };
    let request = request(&bytes[at + 1..], options);
    model(&request);
    whole(&request);
});
