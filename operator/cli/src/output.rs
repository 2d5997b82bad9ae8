//! Tables for people, JSON and YAML for programs.

use std::fmt::Write as _;
use std::io::Write as _;

use serde::Serialize;
use serde_json::Value;

use crate::args::Format;
use crate::exit::Failure;

/// Columns as wide as their widest cell, two spaces between; the last column is not filled up.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With a heading.
    pub fn new(heading: &[&str]) -> Self {
        Self { rows: vec![heading.iter().map(|&h| h.to_owned()).collect()] }
    }

    /// Adds a row. Control characters, which could move a terminal's cursor, become spaces.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let clean = |cell: String| cell.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.rows.push(cells.into_iter().map(clean).collect());
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| self.rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|c| width(c).unwrap_or(0)).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                write!(line, "{cell:width$}  ")?;
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Writes `value`, or what `table` makes of it, to standard output.
pub fn print<T: Serialize>(format: Format, value: &T, table: impl FnOnce(&T) -> String) -> Result<(), Failure> {
    let json = || serde_json::to_value(value).map_err(|e| Failure::Failed(e.to_string()));
    let text = match format {
        Format::Table => table(value),
        Format::Json => format!("{:#}\n", json()?),
        Format::Yaml => yaml(&json()?),
    };
    text_out(&text)
}

/// Writes to standard output. Whoever closed it (`| head`) has read enough.
pub fn text_out(text: &str) -> Result<(), Failure> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::Failed(format!("standard output cannot be written: {e}")))
        }
        _ => Ok(()),
    }
}

/// YAML 1.2 of a JSON value, in block style.
pub fn yaml(value: &Value) -> String {
    let mut out = String::new();
    block(&mut out, value, 0);
    if !out.ends_with('\n') {
        out.push('\n');
    }
    out
}

fn block(out: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                out.push_str(&format!("{indent}{}:", scalar(key)));
                nested(out, value, depth + 1);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let mut text = String::new();
                block(&mut text, item, depth + 1);
                // The item's first line moves up behind its dash.
                out.push_str(&format!("{indent}- {}", text.trim_start_matches(' ')));
                if !text.ends_with('\n') {
                    out.push('\n');
                }
            }
        }
        Value::String(text) => out.push_str(&scalar(text)),
        other => out.push_str(&other.to_string()),
    }
}

fn nested(out: &mut String, value: &Value, depth: usize) {
    let filled = value.as_object().is_some_and(|m| !m.is_empty()) || value.as_array().is_some_and(|a| !a.is_empty());
    if filled {
        out.push('\n');
        block(out, value, depth);
    } else {
        out.push(' ');
        block(out, value, 0);
        out.push('\n');
    }
}

/// Plain where no YAML reader can take it for something else, else quoted as JSON, which YAML includes.
fn scalar(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/'))
        && !matches!(
            text.to_ascii_lowercase().as_str(),
            "true" | "false" | "yes" | "no" | "on" | "off" | "null" | "y" | "n"
        );
    if plain { text.to_owned() } else { Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_says_the_same_as_json() {
        let value = serde_json::json!({
            "name": "digits", "version": "1.0", "note": "a: b # c", "yes": "no", "empty": {}, "none": [],
            "list": [{"a": 1, "b": [true, null]}, "x", [1, [2]], {}],
            "nested": {"deep": {"er": -0.5}},
        });
        insta::assert_snapshot!(yaml(&value), @r#"
        empty: {}
        list:
          - a: 1
            b:
              - true
              - null
          - x
          - - 1
            - - 2
          - {}
        name: digits
        nested:
          deep:
            er: -0.5
        none: []
        note: "a: b # c"
        version: "1.0"
        "yes": "no"
        "#);
        assert_eq!(yaml(&"text".into()), "text\n");
    }

    #[test]
    fn tables_line_up_and_do_not_move_the_cursor() {
        let mut table = Table::new(&["NAME", "B"]);
        table.row(["a".into(), "\u{1b}[2Jx".into()]);
        table.row(["longer".into(), String::new()]);
        assert_eq!(table.to_string(), "NAME    B\na        [2Jx\nlonger\n");
    }
}
