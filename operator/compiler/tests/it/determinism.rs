//! The same model, target and compiler version give the same bytes on any host.

use std::process::Command;

use ballast_bundle::{Contract, Digest, Golden, GoldenMatch};
use ballast_compiler::{Artifacts, COMPILER_VERSION, CompileOutcome, CompileRequest, compile};

use super::{example, request, zoo};

/// The bundles that are compared, by name: every version of the digits, one with the user's golden file for each way that it
/// judges, a recurrent model and a reader of text.
fn bundles() -> Vec<(String, Artifacts)> {
    let digits = |version: &str| request(example(&format!("models/digits-{version}.onnx")));
    let mut requests: Vec<(String, CompileRequest)> =
        ["1.0.0", "2.0.0", "3.0.0", "4.0.0"].into_iter().map(|v| (v.to_owned(), digits(v))).collect();
    let mut labels = digits("1.0.0");
    labels.golden = Some(example("golden.safetensors"));
    labels.verification.golden_match = GoldenMatch::ArgMax;
    labels.verification.min_matching_per_mille = 900;
    requests.push(("labels".into(), labels));
    requests.push(("recurrent".into(), request(zoo::recurrent())));
    requests.push(("reader".into(), request(zoo::reader())));
    let mut built: Vec<(String, Artifacts)> =
        requests.into_iter().map(|(name, request)| (name.clone(), build(&name, &request))).collect();
    // What the compiler made for the first one, given as the user's own numbers, which are off by less than is allowed.
    let mut values = digits("1.0.0");
    let contract: Contract = serde_json::from_slice(&built[0].1.contract).expect("a contract");
    let golden = Golden::of_bundle(&built[0].1.golden, &contract).expect("golden vectors");
    let near = (0..golden.len()).flat_map(|v| golden.output(v, "scores").expect("scores").as_chunks::<4>().0);
    let near = near.flat_map(|b| (f32::from_le_bytes(*b) + 1e-6).to_le_bytes()).collect();
    values.golden = Some(golden.with_outputs(&contract, &[near]));
    built.push(("values".into(), build("values", &values)));
    built
}

fn build(name: &str, request: &CompileRequest) -> Artifacts {
    match compile(request) {
        CompileOutcome::Built(artifacts) => *artifacts,
        CompileOutcome::Refused(verdict) => panic!("{name} was refused: {}", verdict.message),
    }
}

/// A line for each layer of each bundle; `digests.txt` has them in this order.
fn digests() -> Vec<String> {
    let layers = |(name, artifacts): (String, Artifacts)| {
        let layers = [
            ("weights", artifacts.weights),
            ("plan", artifacts.plan),
            ("contract", artifacts.contract),
            ("golden", artifacts.golden),
        ];
        layers.map(|(layer, bytes)| format!("{name} {layer} {}", Digest::of(&bytes)))
    };
    bundles().into_iter().flat_map(layers).collect()
}

/// Other bytes for the same model need another compiler version: gateways would otherwise take a rebuild for a change, and a
/// registry could not rebuild a lost bundle. So: raise `COMPILER_VERSION` in `src/api.rs`, then write the new file with
/// `BALLAST_WRITE_DIGESTS=1 cargo test -p ballast-compiler --test it`.
#[test]
fn bytes_change_only_with_the_compilers_version() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/digests.txt");
    let found = format!("compiler {COMPILER_VERSION}\n{}\n", digests().join("\n"));
    if std::env::var_os("BALLAST_WRITE_DIGESTS").is_some() {
        std::fs::write(path, &found).expect("the file can be written");
    }
    let expected = std::fs::read_to_string(path).expect("digests.txt is there");
    assert_eq!(found, expected, "see the comment on this test");
}

/// Prints the digests; run by [`directories_homes_and_hash_seeds_do_not_matter`] in processes of their own.
#[test]
fn print_digests() {
    println!("DIGESTS {}", digests().join(";"));
}

#[test]
fn directories_homes_and_hash_seeds_do_not_matter() {
    let here = std::env::current_exe().expect("this test program");
    let run = || {
        // A new process has new seeds for its hash maps.
        let directory = tempfile::tempdir().expect("a directory");
        let output = Command::new(&here)
            .args(["--exact", "determinism::print_digests", "--nocapture"])
            .current_dir(directory.path())
            .env("HOME", directory.path())
            .env("TMPDIR", directory.path())
            .output()
            .expect("it runs");
        let text = String::from_utf8(output.stdout).expect("text");
        let start = text.find("DIGESTS ").expect("digests were printed");
        text[start..].lines().next().map(str::to_owned).expect("a line")
    };
    assert_eq!(run(), run());
}
