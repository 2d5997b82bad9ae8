//! What a gateway does with documents and blobs, from the trust root to the golden vectors, in its order.

use ballast_bundle::golden::Golden;
use ballast_bundle::*;

use crate::world::{Files, Gateway};

/// Walks a directory's files; the error begins with the step that refused. `endless` names a file that a server sends over
/// and over without end.
pub fn admit(files: &Files, endless: Option<&str>) -> Result<(), String> {
    let file = |name: &str| files.get(name).map(Vec::as_slice).ok_or_else(|| format!("there is no {name}"));
    let gateway: Gateway = serde_json::from_slice(file("gateway.json")?).unwrap();
    let at = |step: &'static str| move |e: VerifyError| format!("{step}: {e}");
    let envelope = |name: &str| -> Result<Unverified<Envelope>, String> {
        serde_json::from_slice(file(name)?).map(Unverified::new).map_err(|_| format!("{name}: not an envelope"))
    };

    let mut roots = gateway.roots.iter();
    let first = roots.next().ok_or("no root")?;
    let mut root = envelope(first)?.first_root().map_err(at("root"))?;
    for name in roots {
        root = envelope(name)?.next_root(&root).map_err(at("root"))?;
    }

    let pointer = envelope("pointer.json")?
        .pointer(&root, &gateway.audience, &gateway.floors, gateway.now)
        .map_err(at("pointer"))?;
    let assignment = Unverified::new(file("assignment.json")?).assignment(&pointer).map_err(at("assignment"))?;

    let runner = assignment.runner.as_ref().ok_or("no runner")?;
    let statement = Unverified::new(file("runner.json")?)
        .runner(runner, &gateway.target, &root, &gateway.floors)
        .map_err(at("runner"))?;
    stream(file("runner.bin")?, &statement.module, endless == Some("runner.bin")).map_err(at("runner.bin"))?;

    let wanted = assignment
        .deployments
        .iter()
        .find(|d| d.deployment == gateway.deployment)
        .and_then(|d| d.want.as_ref())
        .ok_or("nothing wanted")?;
    let statement = Unverified::new(file("release.json")?)
        .release(wanted, &gateway.deployment, &gateway.target, &root, &gateway.floors)
        .map_err(at("release"))?;
    let layers = Unverified::new(file("manifest.json")?).bundle_manifest(&statement).map_err(at("manifest"))?;
    let contract = Unverified::new(file("contract.json")?).contract(&statement).map_err(at("contract"))?;
    for (name, blob) in
        [("weights.bin", &layers.weights), ("plan.bin", &layers.plan), ("golden.safetensors", &layers.golden)]
    {
        stream(file(name)?, blob, endless == Some(name)).map_err(|e| format!("{name}: {e}"))?;
    }
    let golden = Golden::of_bundle(file("golden.safetensors")?, &contract).map_err(|e| format!("golden: {e}"))?;
    assert_eq!(golden.len(), 3);
    Ok(())
}

/// Downloads in small pieces. An endless stream is cut by the verifier, or this would never return.
fn stream(bytes: &[u8], blob: &Blob, endless: bool) -> Result<(), VerifyError> {
    let mut verifier = StreamVerifier::of(blob);
    loop {
        for piece in bytes.chunks(97) {
            verifier.update(piece)?;
        }
        if !endless {
            return verifier.finish();
        }
    }
}
