//! Releases that do what they are told: a guest written for tests speaks the runner's ABI and finds in its weights how to
//! misbehave, so that traps, endless loops and NaNs come exactly when a test asks for them.

use ballast_bundle::{Digest, Limits, Role, RunnerRef};
use ballast_compiler::Artifacts;
use ballast_sandbox::EngineProfile;
use serde_json::json;

use crate::fleet::Fleet;
use crate::models;

/// What a release does when the first pixel of an image is [`BAD`]; every other image is answered at once.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Does {
    Answer = 0,
    Trap = 1,
    Loop = 2,
    NotANumber = 3,
    /// Answers whatever it is asked, golden vectors included, after [`TURNS`] turns of a loop.
    Slowly = 4,
}

/// Half a second at least, on any CPU.
const TURNS: u32 = 1_000_000_000;

/// The first pixel that makes a release do what it does.
pub(crate) const BAD: f32 = 1.0;

/// An image that is answered well, and one that makes a bad release misbehave.
pub(crate) fn good() -> Vec<u8> {
    vec![0; 256]
}

pub(crate) fn bad() -> Vec<u8> {
    let mut image = good();
    image[..4].copy_from_slice(&BAD.to_le_bytes());
    image
}

/// The first score is the release's own number plus `bias`; the others are 0.
fn wat(bias: u32) -> String {
    format!(
        r#"(module
          (memory (export "memory") 1)
          (global (export "__heap_base") i32 (i32.const 65536))
          (global $weights (mut i32) (i32.const 0))
          (global $arena (mut i32) (i32.const 0))
          (func (export "ballast_abi") (result i32) i32.const 65536)
          (func (export "ballast_load") (param i32 i32 i32 i32 i32 i32) (result i32)
            (global.set $weights (local.get 2))
            (global.set $arena (local.get 4))
            i32.const 0)
          (func (export "ballast_input") (param i32 i32) (result i32) (global.get $arena))
          (func (export "ballast_output") (param i32 i32) (result i32) (i32.add (global.get $arena) (i32.const 256)))
          (func (export "ballast_error") (result i64) i64.const 0)
          (func (export "ballast_infer") (param i32) (result i32) (local $does i32) (local $left i32) (local $score f32)
            (local.set $does (i32.load8_u (global.get $weights)))
            (if (i32.eq (local.get $does) (i32.const {slowly}))
              (then
                (local.set $left (i32.const {TURNS}))
                (loop $turn (br_if $turn (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))))
            (local.set $score (f32.convert_i32_u (i32.add (i32.const {bias}) (i32.load8_u offset=1 (global.get $weights)))))
            (if (f32.eq (f32.load (global.get $arena)) (f32.const {BAD}))
              (then
                (if (i32.eq (local.get $does) (i32.const {trap})) (then unreachable))
                (if (i32.eq (local.get $does) (i32.const {endless})) (then (loop $again (br $again))))
                (if (i32.eq (local.get $does) (i32.const {nan})) (then (local.set $score (f32.const nan))))))
            (f32.store offset=256 (global.get $arena) (local.get $score))
            i32.const 0))"#,
        trap = Does::Trap as u8,
        endless = Does::Loop as u8,
        nan = Does::NotANumber as u8,
        slowly = Does::Slowly as u8,
    )
}

/// The guest as the fleet's runner, number `counter`. A `bias` makes it one that gets every answer wrong.
pub(crate) fn runner(fleet: &Fleet, counter: u64, bias: u32) -> RunnerRef {
    let wasm = wat::parse_str(wat(bias)).unwrap();
    // Wasm bytes differ by a custom section, so that every number is another module.
    let wasm = [&wasm[..], &[0, 10, 1, b'n'], &counter.to_le_bytes()].concat();
    let profile = EngineProfile::host();
    let code = ballast_aot::precompile(&wasm, &profile).unwrap();
    fleet.runner(&profile, &code, Digest::of(&wasm), counter, fleet.key(Role::Runtime))
}

/// A bundle of the scripted guest: release `number` answers with `number`.
pub(crate) fn bundle(version: &str, number: u8, does: Does, limits: Limits) -> Artifacts {
    let mut artifacts = models::with_contract(models::digits("1.0.0"), |contract| {
        contract.version = version.to_owned();
        contract.limits = limits;
        contract.verification.golden_match = ballast_bundle::GoldenMatch::Values;
        contract.verification.min_matching_per_mille = 1000;
    });
    artifacts.weights[0] = does as u8;
    artifacts.weights[1] = number;
    artifacts.golden = golden(number, "scores");
    artifacts
}

/// The same release with an output called `labels`.
pub(crate) fn with_labels(artifacts: Artifacts) -> Artifacts {
    let (plan, golden) = (models::plan_with_labels(), golden(artifacts.weights[1], "labels"));
    let artifacts = models::with_contract(artifacts, |contract| contract.outputs[0].name = "labels".to_owned());
    Artifacts { plan, golden, ..artifacts }
}

/// The same release with a limit on its latency.
pub(crate) fn no_slower_than(millis: u64, artifacts: Artifacts) -> Artifacts {
    models::with_contract(artifacts, |contract| contract.verification.max_latency_p99_millis = Some(millis))
}

/// One that waits for one request at a time; loops end after `deadline_millis`.
pub(crate) fn limits(deadline_millis: u64, max_queue: u32) -> Limits {
    Limits { memory_bytes: 64 << 20, deadline_millis, instances: 1, max_queue }
}

/// Two vectors of the good image.
fn golden(number: u8, output: &str) -> Vec<u8> {
    let header = json!({
        "inputs/image": {"dtype": "F32", "shape": [2, 1, 1, 8, 8], "data_offsets": [0, 512]},
        (format!("outputs/{output}")): {"dtype": "F32", "shape": [2, 1, 10], "data_offsets": [512, 592]},
    })
    .to_string();
    let scores = [&f32::from(number).to_le_bytes()[..], &[0; 36]].concat();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &good().repeat(2), &scores.repeat(2)].concat()
}
