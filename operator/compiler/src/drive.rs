//! The way of a model through the rooms: import, lower, contract, golden vectors, verdict.

use std::collections::BTreeMap;

use ballast_bundle::golden::MAX_GOLDEN_BYTES;
use ballast_bundle::{Contract, Golden, Limits, TargetName, TensorSpec};

use crate::golden::{self, Refusal, Subject};
use crate::import::{self, Findings, Imported};
use crate::ir::{Graph, ValueId};
use crate::judge::{judge, mebibytes};
use crate::lower::{LowerError, Lowered, lower_entries};
use crate::onnx::Dimension;
use crate::{Artifacts, CompileOutcome, CompileRequest, OpenInput, TargetSpec, UnsupportedOperator, Verdict};
use crate::{VerdictReason, batch, buckets, cost, state};

/// The runner ABI that plans are made for: `edge-runtime/runner/ABI.md`.
const RUNNER_ABI: u32 = 1 << 16;

/// A model as far as no target has a say in it, but for the operators that it denies.
struct Read {
    /// One for each shape; with suggested ones where the user's leave something open. Empty where no graph can be had.
    graphs: Vec<(Graph, cost::Cost)>,
    notes: Vec<String>,
    /// Empty when nothing is wrong so far.
    findings: Findings,
}

/// A model that got as far as a plan.
struct Compiled<'r> {
    /// Of the first shape.
    graph: &'r Graph,
    /// Of all of them.
    graphs: &'r [(Graph, cost::Cost)],
    lowered: Lowered,
}

/// Whether the model fits the target, with numbers; everything that is wrong at once. No golden vectors are run.
pub fn check(request: &CompileRequest) -> Verdict {
    verdict(request, &request.target, &read(request, &request.target.deny))
}

/// The same for many targets, in their order: the model is read once for all that deny the same operators. `request.target` does
/// not count. `begun` hears of each target before it is looked at.
pub fn check_targets(
    request: &CompileRequest,
    targets: &[TargetSpec],
    mut begun: impl FnMut(&TargetName),
) -> Vec<Verdict> {
    let mut known: BTreeMap<&[String], Read> = BTreeMap::new();
    let mut verdicts = Vec::with_capacity(targets.len());
    for target in targets {
        begun(&target.name);
        let read = known.entry(&target.deny).or_insert_with(|| read(request, &target.deny));
        verdicts.push(verdict(request, target, read));
    }
    verdicts
}

fn verdict(request: &CompileRequest, target: &TargetSpec, read: &Read) -> Verdict {
    match plan(request, target, read) {
        Ok((_, verdict)) => verdict,
        Err(verdict) => *verdict,
    }
}

/// Compiles in this process. The caller proves the result before it signs it.
pub fn compile(request: &CompileRequest) -> CompileOutcome {
    let read = read(request, &request.target.deny);
    let (compiled, mut verdict) = match plan(request, &request.target, &read) {
        Ok((compiled, verdict)) if verdict.fits => (compiled, verdict),
        Ok((_, verdict)) => return CompileOutcome::Refused(verdict),
        Err(verdict) => return CompileOutcome::Refused(*verdict),
    };
    if request.golden.is_none() {
        verdict.message.push_str(
            "\nGolden outputs are self-made: they catch a wrong compilation and bad hardware, not a bad model.",
        );
    }
    let batch = if batch::is_asked(&request.inputs) {
        match batch::prove(request, compiled.graph) {
            Ok(batch) => Some(batch),
            Err(why) => {
                let message = format!("model.inputs[].batchAxis cannot be granted: {why}.");
                return CompileOutcome::Refused(verdict.refused(VerdictReason::InvalidInputs, message));
            }
        }
    } else {
        None
    };
    if let Some(batch) = &batch {
        let note = format!(
            "clients may send up to {} rows at once; each is run alone, which was shown to give the same answers",
            batch.max
        );
        verdict.message.push_str(&format!("\nNote: {note}."));
        verdict.notes.push(note);
    }
    let contract = contract(request, &compiled, &verdict, batch);
    let golden = match golden_files(request, &compiled, &contract) {
        Ok((files, accuracy)) => {
            if let Some(accuracy) = &accuracy {
                verdict.message.push_str(&format!("\nAccuracy: {accuracy}."));
            }
            verdict.accuracy = accuracy;
            files
        }
        Err(Refusal::Invalid(message)) => {
            return CompileOutcome::Refused(verdict.refused(VerdictReason::InvalidGolden, message));
        }
        Err(Refusal::Mismatch(message, accuracy)) => {
            let message = match &accuracy {
                Some(accuracy) => format!("{message}\nAccuracy: {accuracy}."),
                None => message,
            };
            verdict.accuracy = accuracy.map(|a| *a);
            return CompileOutcome::Refused(verdict.refused(VerdictReason::GoldenMismatch, message));
        }
    };
    let joined = ballast_bundle::golden::join(&golden);
    let golden = match joined.and_then(|file| Ok((Golden::of_entries(&file, &contract)?, file))) {
        Ok((goldens, file)) => {
            if let Err(why) = buckets::prove_padding(&contract, compiled.graphs, &goldens) {
                return CompileOutcome::Refused(no_padding(verdict, &why));
            }
            file
        }
        Err(e) => {
            let message = format!("The golden vectors of all shapes cannot be put together: {e}.");
            return CompileOutcome::Refused(verdict.refused(VerdictReason::InvalidGolden, message));
        }
    };
    if contract.buckets.as_ref().is_some_and(|b| b.padding.iter().any(Option::is_some)) {
        let note = "requests may be shorter than a shape: filling them up was shown to change no answer";
        verdict.message.push_str(&format!("\nNote: {note}."));
        verdict.notes.push(note.to_owned());
    }
    // A contract is plain data with string keys: it always has a JSON form.
    let Ok(contract) = serde_json::to_vec(&contract) else {
        let message = "The contract has no JSON form.".to_owned();
        return CompileOutcome::Refused(verdict.refused(VerdictReason::NotLowered, message));
    };
    let Lowered { plan, weights, .. } = compiled.lowered;
    CompileOutcome::Built(Box::new(Artifacts { weights, plan, contract, golden, verdict }))
}

fn no_padding(verdict: Verdict, why: &str) -> Verdict {
    verdict.refused(VerdictReason::InvalidInputs, format!("model.inputs[].padding cannot be granted: {why}."))
}

/// A golden file for each entry; with what the user's vectors, which are of the first, said of the model.
fn golden_files(
    request: &CompileRequest,
    compiled: &Compiled<'_>,
    contract: &Contract,
) -> Result<(Vec<Vec<u8>>, Option<crate::Accuracy>), Refusal> {
    let masks = buckets::masks_of(&request.inputs);
    let (mut files, mut accuracy, mut room) = (Vec::new(), None, MAX_GOLDEN_BYTES);
    for (n, (graph, cost)) in compiled.graphs.iter().enumerate() {
        let left = compiled.graphs.len() - n;
        let own = contract.of_entry(n);
        let subject = Subject {
            graph,
            contract: &own,
            model: &request.model,
            flop: cost.flop,
            masks: &masks,
            room: room / left,
            most: if left == 1 && n == 0 { golden::MADE } else { golden::MADE_OF_SEVERAL },
        };
        let (file, found) = golden::golden(&subject, request.golden.as_deref().filter(|_| n == 0))?;
        room = room.saturating_sub(file.len());
        files.push(file);
        accuracy = accuracy.or(found);
    }
    Ok((files, accuracy))
}

/// Imports the model; where it leaves dimensions open, once more with shapes that may do, so that all else can be said.
fn read(request: &CompileRequest, deny: &[String]) -> Read {
    let costed = |graph: Graph| {
        let cost = cost::cost(&graph);
        (graph, cost)
    };
    let mut findings = match import_all(request, deny) {
        Ok((graphs, notes)) => {
            let look = |graph| state::look(&request.inputs, graph, &request.runtime.sequences);
            let (wrong, said) = graphs.first().map(look).unwrap_or_default();
            let notes = notes.into_iter().chain(said).collect();
            let findings = Findings { inputs: wrong, ..Findings::default() };
            return Read { graphs: graphs.into_iter().map(costed).collect(), notes, findings };
        }
        Err(findings) => *findings,
    };
    let (mut graphs, mut notes) = (Vec::new(), Vec::new());
    // Of several shapes the first.
    let given = buckets::inputs_of(&request.inputs).ok().and_then(|all| all.into_iter().next());
    let given = given.unwrap_or_else(|| request.inputs.clone());
    if !findings.open.is_empty() {
        let open = std::mem::take(&mut findings.open);
        for suggested in import::suggestions(&open) {
            // Wrong inputs, or a model that contradicts itself, are not mended by any numbers.
            let hopeless = !findings.inputs.is_empty() || !findings.invalid.is_empty() || !findings.opsets.is_empty();
            let inputs: Vec<_> =
                given.iter().filter(|i| i.shape.is_some() || i.value.is_some()).chain(&suggested).cloned().collect();
            let found = if hopeless { None } else { Some(import::import(&request.model, &inputs, deny)) };
            let first = findings.suggested.is_empty();
            match found {
                Some(Ok(imported)) => {
                    (graphs, notes) = (vec![costed(imported.graph)], imported.notes);
                    (findings.suggested, findings.tried) = (suggested, true);
                    // What the census counted in branches that are not taken does not count.
                    findings.unsupported.clear();
                    break;
                }
                Some(Err(found)) if found.is_of_operators_only() => {
                    (findings.suggested, findings.tried) = (suggested, true);
                    (findings.unsupported, findings.types) = (found.unsupported, found.types);
                    break;
                }
                Some(Err(_)) if first => findings.suggested = suggested,
                Some(Err(_)) => {}
                None => {
                    findings.suggested = suggested;
                    break;
                }
            }
        }
        findings.open = open;
        if let Some((graph, _)) = graphs.first() {
            let (wrong, said) = state::look(&request.inputs, graph, &request.runtime.sequences);
            findings.inputs.extend(wrong);
            notes.extend(said);
        }
    }
    Read { graphs, notes, findings }
}

/// The model for each of its shapes.
fn import_all(request: &CompileRequest, deny: &[String]) -> Result<(Vec<Graph>, Vec<String>), Box<Findings>> {
    let wrong = |why: String| Box::new(Findings { inputs: vec![why], ..Findings::default() });
    let (mut graphs, mut all): (Vec<Graph>, Vec<String>) = (Vec::new(), Vec::new());
    for (n, inputs) in buckets::inputs_of(&request.inputs).map_err(wrong)?.iter().enumerate() {
        let Imported { graph, notes, .. } = import::import(&request.model, inputs, deny).map_err(|mut findings| {
            if n > 0 {
                // The first was good: it is this one's numbers that do not work out.
                let each = findings.invalid.iter_mut().chain(&mut findings.inputs);
                each.for_each(|said| *said = format!("with number {} of the shapes: {said}", n + 1));
            }
            findings
        })?;
        graphs.push(graph);
        all.extend(notes.into_iter().filter(|note| !all.contains(note)).collect::<Vec<_>>());
    }
    buckets::alike(&graphs).map_err(wrong)?;
    Ok((graphs, all))
}

/// What findings say, without numbers.
fn refused(request: &CompileRequest, read: &Read) -> Verdict {
    let findings = &read.findings;
    let suggested = |name: &str| findings.suggested.iter().find(|o| o.name == name).and_then(|o| o.shape.clone());
    let dimension = |d: &Dimension| match d {
        Dimension::Value(extent) => extent.to_string(),
        Dimension::Open(name) if name.is_empty() => "?".to_owned(),
        Dimension::Open(name) => name.clone(),
    };
    Verdict {
        unsupported: findings.opsets.iter().chain(&findings.unsupported).cloned().collect(),
        unsupported_types: findings.types.iter().cloned().collect(),
        open_inputs: findings
            .open
            .iter()
            .map(|input| OpenInput {
                name: input.name.clone(),
                dimensions: input.dims.as_ref().map(|dims| dims.iter().map(dimension).collect()),
                suggested: suggested(&input.name),
            })
            .collect(),
        inputs_yaml: (!findings.open.is_empty()).then(|| findings.yaml(&request.inputs)),
        ..Verdict::new(findings.reason(), findings.message())
    }
}

/// What is missing for the numbers.
fn unknown(findings: &Findings) -> Vec<String> {
    if findings.not_onnx.is_some() {
        return Vec::new();
    }
    let mut unknown = Vec::new();
    if !findings.open.is_empty() && !findings.tried {
        unknown.push(
            "whether operators are supported in the form that single nodes use is known once every input has a shape"
                .to_owned(),
        );
    }
    let mut needs = Vec::new();
    if !findings.open.is_empty() && !findings.tried {
        needs.push("every input has a shape");
    }
    if !findings.opsets.is_empty() || !findings.unsupported.is_empty() || !findings.types.is_empty() {
        needs.push("everything in the model is supported");
    }
    if !findings.inputs.is_empty() || !findings.invalid.is_empty() {
        needs.push("the model and its inputs fit together");
    }
    unknown.push(format!("memory, size, GFLOP, time and accuracy are known once {}", needs.join(" and ")));
    unknown
}

/// As far as it goes without running the model. `Ok` has a verdict that may still say no, with all its numbers.
fn plan<'r>(
    request: &CompileRequest,
    target: &TargetSpec,
    read: &'r Read,
) -> Result<(Compiled<'r>, Verdict), Box<Verdict>> {
    let nothing_wrong = read.findings.is_empty();
    let graphs: Vec<&Graph> = read.graphs.iter().map(|(graph, _)| graph).collect();
    let Some(graph) = graphs.first().copied() else {
        let mut verdict = refused(request, read);
        verdict.unknown = unknown(&read.findings);
        for line in &verdict.unknown {
            verdict.message.push_str(&format!("\nNot known yet: {line}."));
        }
        return Err(Box::new(verdict));
    };
    let lowered = match lower_entries(&graphs, target) {
        Ok(lowered) => lowered,
        Err(LowerError::TooLarge { what, bytes }) => {
            let message = format!("The model needs {what} of {}; the plan format ends below 2 GiB.", mebibytes(bytes));
            return Err(Box::new(Verdict::new(VerdictReason::MemoryExceeded, message)));
        }
        Err(LowerError::NotLowered(gaps)) => {
            let lines: Vec<String> =
                gaps.iter().map(|gap| format!("- {} at node {:?}: {}", gap.operator, gap.node, gap.detail)).collect();
            let message = format!(
                "The model has operators that cannot be compiled yet. Leave them out when exporting, or do their work in \
                 the application.\n{}",
                lines.join("\n")
            );
            let unsupported = gaps.into_iter().map(|gap| UnsupportedOperator {
                operator: gap.operator,
                node: gap.node,
                nearest: Some(gap.detail),
            });
            let unsupported = unsupported.collect();
            return Err(Box::new(Verdict { unsupported, ..Verdict::new(VerdictReason::NotLowered, message) }));
        }
        Err(ref e @ LowerError::Plan(ref why)) => {
            let message = format!("This is a fault of the compiler: {e}: {why}.");
            return Err(Box::new(Verdict::new(VerdictReason::NotLowered, message)));
        }
    };
    let carried = state::memory(&request.inputs, graph, &request.runtime.sequences);
    let mut verdict = judge(target, &request.runtime, &lowered, &read.graphs, carried, &read.notes);
    if !nothing_wrong {
        // Numbers of the suggested shapes, or of a model whose state cannot be carried as it is asked.
        let with = if read.findings.open.is_empty() { "Otherwise" } else { "With these shapes" };
        let said = refused(request, read);
        verdict = Verdict {
            fits: false,
            reason: said.reason,
            open_inputs: said.open_inputs,
            inputs_yaml: said.inputs_yaml,
            message: format!("{}\n{with}: {}", said.message, verdict.message),
            ..verdict
        };
    }
    let compiled = Compiled { graph, graphs: &read.graphs, lowered };
    if let Err(why) = buckets::padding_fits(&contract(request, &compiled, &verdict, None)) {
        let said = if verdict.fits { String::new() } else { format!("\n{}", verdict.message) };
        verdict = no_padding(verdict, &why);
        verdict.message.push_str(&said);
    }
    Ok((compiled, verdict))
}

fn contract(
    request: &CompileRequest,
    compiled: &Compiled<'_>,
    verdict: &Verdict,
    batch: Option<ballast_bundle::Batch>,
) -> Contract {
    let spec = |id: &ValueId, name: &str| {
        let value = compiled.graph.value(*id);
        TensorSpec {
            name: name.to_owned(),
            datatype: value.dtype.datatype(),
            shape: value.shape.iter().map(|d| *d as u64).collect(),
        }
    };
    let graph = compiled.graph;
    let mut verification = request.verification.clone();
    verification.user_golden = request.golden.is_some();
    Contract {
        format: 1,
        model: request.model_name.clone(),
        version: request.version.clone(),
        variant: request.variant.clone(),
        target: request.target.name.clone(),
        abi: RUNNER_ABI,
        plan_major: ballast_plan::MAJOR,
        inputs: graph.inputs.iter().map(|id| spec(id, &graph.value(*id).name)).collect(),
        outputs: graph.outputs.iter().zip(&graph.output_names).map(|(id, name)| spec(id, name)).collect(),
        counted: graph.counted_outputs(),
        limits: Limits {
            memory_bytes: verdict.peak_memory_bytes,
            deadline_millis: verdict.deadline_millis,
            instances: request.runtime.instances.max(1),
            max_queue: request.runtime.max_queue,
        },
        verification,
        batch,
        state: state::of(&request.inputs, graph, &request.runtime.sequences),
        buckets: buckets::buckets(request, compiled.graphs),
    }
}
