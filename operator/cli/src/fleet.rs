//! Tokens and gateways: what the operator's store knows.

use hyper::Method;
use serde_json::{Value, json};

use crate::args::{Format, Gateways, Operator, Token};
use crate::exit::Failure;
use crate::output::{Table, print, text_out};
use crate::{duration, http};

/// `token create`.
pub fn token(operator: &Operator, command: &Token) -> Result<(), Failure> {
    let Token::Create { name, labels, uses, expires, allow_replace, namespace, output } = command;
    let labels: serde_json::Map<String, Value> = labels
        .iter()
        .map(|label| match label.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.into())),
            _ => Err(Failure::Failed(format!("{label:?} is not a label: write KEY=VALUE"))),
        })
        .collect::<Result<_, _>>()?;
    let body = json!({
        "name": name,
        "labels": labels,
        "uses": uses,
        "expiresSeconds": expires.0.div_ceil(1000),
        "allowReplace": allow_replace,
        "namespace": namespace,
    });
    let answer = http::operator(&operator.socket, Method::POST, "/v1/tokens", Some(&body))?;
    let text = text(&answer, "token");
    if output.format == Format::Table {
        // Alone on standard output, so that it can be piped to where it is needed.
        return text_out(&format!("{text}\n"));
    }
    print(output.format, &answer, |_| String::new())
}

/// `gateways list | show`.
pub fn gateways(operator: &Operator, command: &Gateways) -> Result<(), Failure> {
    match command {
        Gateways::List { limit, output } => {
            let items = all(operator, *limit)?;
            print(output.format, &json!({"items": items}), |_| list(&items))
        }
        Gateways::Show { id, output } => {
            let get = |id: &str| {
                http::operator(&operator.socket, Method::GET, &format!("/v1/gateways/{}", http::segment(id)), None)
            };
            let gateway = match get(id) {
                // People know gateways by their names.
                Err(Failure::Missing(_)) => get(&named(&all(operator, usize::MAX)?, id)?)?,
                answer => answer?,
            };
            print(output.format, &gateway, show)
        }
    }
}

/// The id of the one gateway of this name.
fn named(gateways: &[Value], name: &str) -> Result<String, Failure> {
    let found: Vec<String> =
        gateways.iter().filter(|gateway| gateway["displayName"] == name).map(|gateway| text(gateway, "id")).collect();
    match found.as_slice() {
        [id] => Ok(id.clone()),
        [] => Err(Failure::Failed(format!(
            "there is no gateway of the id or name {name:?}; `ballast gateways list` shows those there are"
        ))),
        several => Err(Failure::Failed(format!("several gateways are called {name:?}: {}", several.join(", ")))),
    }
}

/// Page after page.
fn all(operator: &Operator, limit: usize) -> Result<Vec<Value>, Failure> {
    let mut items: Vec<Value> = Vec::new();
    let mut after = String::new();
    while items.len() < limit {
        let page = (limit - items.len()).min(1000);
        let path = format!("/v1/gateways?limit={page}&after={}", http::segment(&after));
        let mut answer = http::operator(&operator.socket, Method::GET, &path, None)?;
        if let Some(Value::Array(more)) = answer.get_mut("items").map(Value::take) {
            items.extend(more);
        }
        match answer.get("next").and_then(Value::as_str) {
            Some(next) if next != after => after = next.to_owned(),
            _ => break,
        }
    }
    Ok(items)
}

/// A field as text; empty when it is not there.
pub fn text(value: &Value, key: &str) -> String {
    match value.get(key) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(s)) => s.clone(),
        Some(other) => other.to_string(),
    }
}

fn labels(gateway: &Value) -> String {
    let labels = gateway.get("labels").and_then(Value::as_object);
    let pairs = labels.into_iter().flatten().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()));
    pairs.collect::<Vec<_>>().join(",")
}

fn list(items: &[Value]) -> String {
    let mut table = Table::new(&["ID", "NAME", "NAMESPACE", "STATE", "TARGET", "LABELS", "LAST SEEN"]);
    for gateway in items {
        table.row([
            text(gateway, "id"),
            text(gateway, "displayName"),
            or_dash(text(gateway, "namespace")),
            text(gateway, "state"),
            or_dash(text(gateway, "target")),
            labels(gateway),
            or_dash(text(gateway, "lastSeen")),
        ]);
    }
    table.to_string()
}

/// A dash for what is not known, so that columns stay countable.
pub fn or_dash(text: String) -> String {
    if text.is_empty() { "-".into() } else { text }
}

/// Where a release is on the gateway.
fn place(report: &Value) -> String {
    let (slot, state) = (text(report, "slot"), text(report, "state"));
    match (slot.as_str(), state.as_str()) {
        ("Candidate", state) => format!("Candidate ({state})"),
        ("", "RolledBack") => state,
        // What it last said of a release that it holds no more.
        ("", _) => "Gone".into(),
        (slot, _) => slot.into(),
    }
}

fn show(gateway: &Value) -> String {
    let facts = &gateway["facts"];
    let bytes = |key: &str| facts.get(key).and_then(Value::as_u64).map_or("-".into(), duration::bytes);
    let features: Vec<&str> = facts["cpuFeatures"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let speed = &facts["speed"];
    let speed = match (speed["gflops"].as_f64(), speed["memoryBandwidth"].as_f64()) {
        (Some(gflops), Some(bandwidth)) => format!("{gflops:.1} GFLOP/s, {bandwidth:.1} GB/s (measured)"),
        _ => "-".into(),
    };
    let mut table = Table::default();
    for (name, value) in [
        ("Id", text(gateway, "id")),
        ("Name", text(gateway, "displayName")),
        ("Namespace", text(gateway, "namespace")),
        ("State", text(gateway, "state")),
        ("Target", or_dash(text(gateway, "target"))),
        ("Labels", or_dash(labels(gateway))),
        ("Enrolled", text(gateway, "enrolled")),
        ("Last seen", or_dash(text(gateway, "lastSeen"))),
        ("Certificate expires", or_dash(text(gateway, "certificateExpires"))),
        ("Hardware", format!("{} {}", text(facts, "arch"), features.join(","))),
        ("Memory for guests", bytes("memoryBytes")),
        ("Disk for bundles", bytes("diskBytes")),
        ("Speed", speed),
        ("Agent", format!("{} ({})", text(facts, "agent"), text(facts, "engine"))),
    ] {
        table.row([format!("{name}:"), value]);
    }
    let mut releases =
        Table::new(&["DEPLOYMENT", "VERSION", "RELEASE", "SLOT", "REQUESTS", "FAILURES", "REASON", "MESSAGE"]);
    let reports = gateway["reports"].as_array().map(Vec::as_slice).unwrap_or_default();
    for report in reports {
        releases.row([
            text(&report["deployment"], "name"),
            text(report, "version"),
            format!("{}.{}", text(&report["number"], "epoch"), text(&report["number"], "counter")),
            place(report),
            text(report, "requests"),
            text(report, "failures"),
            or_dash(text(report, "reason")),
            text(report, "message"),
        ]);
    }
    if reports.is_empty() { table.to_string() } else { format!("{table}\n{releases}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(version: &str, counter: u64, state: &str, slot: &str) -> Value {
        json!({"deployment": {"namespace": "plant", "name": "digits"}, "version": version,
            "number": {"epoch": 1, "counter": counter}, "state": state, "requests": 7, "failures": 0,
            "slot": Some(slot).filter(|slot| !slot.is_empty())})
    }

    fn gateway() -> Value {
        json!({
            "id": "gw-1", "namespace": "plant", "displayName": "press-7", "state": "Enrolled", "labels": {"line": "bottling"},
            "target": "x86-64-v3", "enrolled": "2026-01-01T00:00:00Z", "lastSeen": null,
            "facts": {"arch": "x86_64", "cpuFeatures": ["avx", "fma"], "memoryBytes": 268435456, "diskBytes": 1000,
                "agent": "0.1.0", "engine": "wasmtime 48.0.8", "speed": {"gflops": 40.25, "memoryBandwidth": 9.0}},
            "reports": [{"deployment": {"namespace": "ns", "name": "digits"}, "version": "2.0.0",
                "number": {"epoch": 1, "counter": 7}, "state": "RolledBack", "requests": 40, "failures": 1,
                "reason": "NotFinite", "message": "output scores is not finite"}, held("3.0.0", 8, "Active", "Fallback"),
                held("4.0.0", 9, "Active", "Active"), held("5.0.0", 10, "Trial", "Candidate"), held("1.0.0", 6, "Active", "")],
        })
    }

    #[test]
    fn gateways_are_shown_with_what_they_reported() {
        insta::assert_snapshot!(show(&gateway()), @r"
        Id:                   gw-1
        Name:                 press-7
        Namespace:            plant
        State:                Enrolled
        Target:               x86-64-v3
        Labels:               line=bottling
        Enrolled:             2026-01-01T00:00:00Z
        Last seen:            -
        Certificate expires:  -
        Hardware:             x86_64 avx,fma
        Memory for guests:    256.0 MiB
        Disk for bundles:     1000 B
        Speed:                40.2 GFLOP/s, 9.0 GB/s (measured)
        Agent:                0.1.0 (wasmtime 48.0.8)

        DEPLOYMENT  VERSION  RELEASE  SLOT               REQUESTS  FAILURES  REASON     MESSAGE
        digits      2.0.0    1.7      RolledBack         40        1         NotFinite  output scores is not finite
        digits      3.0.0    1.8      Fallback           7         0         -
        digits      4.0.0    1.9      Active             7         0         -
        digits      5.0.0    1.10     Candidate (Trial)  7         0         -
        digits      1.0.0    1.6      Gone               7         0         -
        ");
        insta::assert_snapshot!(list(&[gateway(), json!({"id": "gw-2", "state": "Revoked"})]), @r"
        ID    NAME     NAMESPACE  STATE     TARGET     LABELS         LAST SEEN
        gw-1  press-7  plant      Enrolled  x86-64-v3  line=bottling  -
        gw-2           -          Revoked   -                         -
        ");
    }

    #[test]
    fn gateways_are_found_by_their_names() {
        let fleet = ["press-7", "press-8", "press-8"].iter().enumerate();
        let fleet: Vec<Value> = fleet.map(|(i, name)| json!({"id": format!("gw-{i}"), "displayName": name})).collect();
        assert_eq!(named(&fleet, "press-7").unwrap(), "gw-0");
        let error = |name| named(&fleet, name).unwrap_err().sentence().unwrap().to_owned();
        assert!(error("press-8").contains("gw-1, gw-2"));
        assert!(error("press-9").contains("`ballast gateways list`"));
    }
}
