//! `/metrics`, read as strictly as Prometheus' own linter does: text format 0.0.4.

use std::collections::{BTreeMap, BTreeSet};

use crate::failures::on_trial;
use crate::script::{self, Does};

/// A family: its type and its samples by labels.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    samples: BTreeMap<BTreeMap<String, String>, f64>,
}

/// Reads a whole exposition. `Err` says which line is wrong, and how.
fn read(text: &str) -> Result<BTreeMap<String, Family>, String> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let Some(text) = text.strip_suffix('\n') else { return Err("the last line has no end".to_owned()) };
    // Families come one after the other: help, type, samples.
    let (mut current, mut stage) = (String::new(), 0);
    for line in text.split('\n') {
        let wrong = |what: &str| Err(format!("{what}: {line}"));
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let Some((name, help)) = rest.split_once(' ') else { return wrong("no help") };
            if !is_name(name) || families.contains_key(name) {
                return wrong("no name, or the family is there twice");
            }
            if help.trim().is_empty() || unescape(help, false).is_none() {
                return wrong("the help says nothing, or is badly escaped");
            }
            (current, stage) = (name.to_owned(), 1);
            families.insert(current.clone(), Family::default());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let Some((name, kind)) = rest.split_once(' ') else { return wrong("no type") };
            if stage != 1 || name != current || !["counter", "gauge"].contains(&kind) {
                return wrong("the type does not follow its help, or is unknown");
            }
            // The linter wants counters to end so; Triton's do not.
            if (kind == "counter") != name.ends_with("_total") && !name.starts_with("nv_") {
                return wrong("_total is for counters, and only for them");
            }
            families.get_mut(name).unwrap().kind = kind.to_owned();
            stage = 2;
        } else if line.starts_with('#') || line.is_empty() {
            return wrong("neither help nor type nor sample");
        } else {
            let Some((name, labels, value)) = sample(line) else { return wrong("no sample") };
            if stage != 2 || name != current {
                return wrong("the sample is not of the family before it");
            }
            let family = families.get_mut(&name).unwrap();
            if family.kind == "counter" && !(value >= 0.0 && value.is_finite()) {
                return wrong("a counter counts");
            }
            if family.samples.keys().next().is_some_and(|first| !first.keys().eq(labels.keys())) {
                return wrong("its labels are not those of its family");
            }
            if family.samples.insert(labels, value).is_some() {
                return wrong("the sample is there twice");
            }
        }
    }
    Ok(families)
}

fn is_name(name: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(first) && name.chars().all(|c| first(c) || c.is_ascii_digit())
}

/// `name{label="value",…} number`, with no space but the one.
fn sample(line: &str) -> Option<(String, BTreeMap<String, String>, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(mut inner) = rest.strip_prefix('{') {
        loop {
            let (label, after) = inner.split_once("=\"")?;
            // The quote that ends it is the first that no backslash escapes.
            let mut escaped = false;
            let end = after.find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            })?;
            let value = unescape(&after[..end], true)?;
            if !is_name(label) || label.starts_with("__") || labels.insert(label.to_owned(), value).is_some() {
                return None;
            }
            inner = &after[end + 1..];
            match inner.strip_prefix(',') {
                Some(more) => inner = more,
                None => break,
            }
        }
        rest = inner.strip_prefix('}')?;
    }
    let number = rest.strip_prefix(' ')?;
    if !is_name(name) || number.contains(' ') {
        return None;
    }
    Some((name.to_owned(), labels, number.parse().ok()?))
}

fn unescape(text: &str, quoted: bool) -> Option<String> {
    let (mut out, mut chars) = (String::new(), text.chars());
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.push(match chars.next()? {
                '\\' => '\\',
                'n' => '\n',
                '"' if quoted => '"',
                _ => return None,
            }),
            '"' if quoted => return None,
            c => out.push(c),
        }
    }
    Some(out)
}

#[test]
fn the_reader_is_strict() {
    let head = "# HELP a_total x\n# TYPE a_total counter\n";
    let good = format!("{head}a_total{{l=\"v\\\\\\\"\\n,}}\",m=\"\"}} 1\na_total{{l=\"w\",m=\"\"}} 2.5\n");
    let read_well = read(&good).unwrap();
    let labels: Vec<_> = read_well["a_total"].samples.keys().map(|l| l["l"].clone()).collect();
    assert_eq!(labels, ["v\\\"\n,}", "w"]);
    for bad in [
        "a_total 1",
        "a_total 1\n",
        "# HELP a_total x\na_total 1\n",
        "# TYPE a_total counter\na_total 1\n",
        "# HELP a_total \n# TYPE a_total counter\n",
        "# HELP a x\n# TYPE a counter\na 1\n",
        "# HELP a_total x\n# TYPE a_total gauge\na_total 1\n",
        &format!("{head}b_total 1\n"),
        &format!("{head}a_total 1\na_total 1\n"),
        &format!("{head}a_total -1\n"),
        &format!("{head}a_total NaN\n"),
        &format!("{head}a_total  1\n"),
        &format!("{head}a_total 1 \n"),
        &format!("{head}a_total{{}} 1\n"),
        &format!("{head}a_total{{l=\"v}} 1\n"),
        &format!("{head}a_total{{l=\"\\x\"}} 1\n"),
        &format!("{head}a_total{{l=\"v\",l=\"w\"}} 1\n"),
        &format!("{head}a_total{{l=\"v\"}} 1\na_total{{m=\"v\"}} 1\n"),
        &format!("{head}\na_total 1\n"),
        &format!("{head}{head}"),
    ] {
        assert!(read(bad).is_err(), "{bad}");
    }
}

#[test]
fn metrics_are_valid_and_count_what_happened() {
    let (_fleet, gateway) = on_trial(Does::Answer, Does::Trap, script::limits(60_000, 16));
    assert_eq!(gateway.image(&script::bad()).by(), "fallback");
    assert_eq!(gateway.call("POST", "/v2/models/digits/infer", &[], b"rubbish").status, 400);
    let text = gateway.metrics();
    let families = read(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let labels = |version: &str| {
        BTreeMap::from([("model".to_owned(), "digits".to_owned()), ("version".to_owned(), version.to_owned())])
    };
    let of = |family: &str, version: &str| families[family].samples[&labels(version)];
    // Triton's names, for each version that ran.
    for family in [
        "nv_inference_request_success",
        "nv_inference_request_failure",
        "nv_inference_count",
        "nv_inference_exec_count",
        "nv_inference_request_duration_us",
        "nv_inference_queue_duration_us",
        "nv_inference_compute_input_duration_us",
        "nv_inference_compute_infer_duration_us",
        "nv_inference_compute_output_duration_us",
    ] {
        let versions: BTreeSet<_> = families[family].samples.keys().map(|l| l["version"].as_str()).collect();
        assert_eq!(versions, BTreeSet::from(["1.0.0", "2.0.0"]), "{family}");
        assert_eq!(families[family].kind, "counter");
    }
    assert_eq!((of("nv_inference_request_failure", "1.0.0"), of("nv_inference_request_failure", "2.0.0")), (0.0, 1.0));
    assert!(of("nv_inference_request_success", "1.0.0") >= 1.0);
    assert!(of("nv_inference_request_duration_us", "1.0.0") >= of("nv_inference_compute_infer_duration_us", "1.0.0"));
    assert_eq!(families["nv_inference_pending_request_count"].kind, "gauge");
    assert_eq!(families["ballast_fallback_answers_total"].samples[&BTreeMap::new()], 1.0);
    assert!(families["ballast_requests_refused_total"].samples[&BTreeMap::new()] >= 1.0);

    // The statistics extension tells the same.
    let stats = gateway.call("GET", "/v2/models/digits/versions/1.0.0/stats", &[], b"").json();
    let stats = &stats["model_stats"][0];
    assert_eq!(stats["inference_stats"]["success"]["count"], of("nv_inference_request_success", "1.0.0") as u64);
    assert_eq!(stats["execution_count"], of("nv_inference_exec_count", "1.0.0") as u64);
    assert!(stats["last_inference"].as_u64().unwrap() > 1_600_000_000_000);
}
