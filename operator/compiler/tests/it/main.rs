//! The compiler from the outside: files in, verdicts and bundles out.

mod batch;
mod buckets;
mod determinism;
mod digits;
mod every_operator;
mod external;
mod functions;
mod hostile;
mod operators;
mod refusals;
mod state;
mod strict;
mod verdict;
mod writer;
mod zoo;

use std::path::PathBuf;

use ballast_bundle::{GoldenMatch, Tolerance, Verification};
use ballast_compiler::{CompileRequest, RuntimeLimits, TargetSpec};

/// A file of the digits example.
fn example(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/digits").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A roomy target whose speed is known.
fn target() -> TargetSpec {
    TargetSpec {
        name: "x86-64-v3".parse().expect("a name"),
        triple: "x86_64-unknown-linux-musl".into(),
        cpu_features: vec!["avx2".into(), "fma".into()],
        memory_bytes: 1 << 30,
        deny: vec![],
        gflops: 20.0,
        memory_bandwidth: 5e9,
    }
}

fn request(model: Vec<u8>) -> CompileRequest {
    CompileRequest {
        model,
        model_name: "digits".into(),
        version: "1.0.0".into(),
        variant: "fp32".into(),
        target: target(),
        inputs: vec![],
        runtime: RuntimeLimits {
            memory_limit: 64 << 20,
            deadline_millis: None,
            instances: 1,
            max_queue: 16,
            ..RuntimeLimits::default()
        },
        verification: Verification {
            golden_match: GoldenMatch::Values,
            min_matching_per_mille: 1000,
            tolerance: Tolerance { absolute: 1e-4, relative: 1e-3 },
            finite_outputs: true,
            max_latency_p99_millis: None,
            user_golden: false,
        },
        golden: None,
    }
}
