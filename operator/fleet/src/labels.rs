//! Labels of gateways, with Kubernetes' own syntax and bounds.

use std::collections::BTreeMap;

/// Labels, sorted by key.
pub type Labels = BTreeMap<String, String>;

/// More labels than this on one gateway are refused: they travel in its certificate.
pub const MAX_LABELS: usize = 32;

/// Why labels are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// Too many.
    #[error("{0} labels; write at most {MAX_LABELS}")]
    TooMany(usize),
    /// A key.
    #[error("label key {0:?} is not valid; write [prefix/]name of letters, digits, '-', '_' and '.'")]
    Key(String),
    /// A value.
    #[error("label value {0:?} is not valid; write at most 63 letters, digits, '-', '_' and '.'")]
    Value(String),
}

/// Checks syntax and bounds (Kubernetes' label rules).
pub fn check(labels: &Labels) -> Result<(), LabelError> {
    if labels.len() > MAX_LABELS {
        return Err(LabelError::TooMany(labels.len()));
    }
    for (key, value) in labels {
        let (prefix, name) = key.split_once('/').map_or((None, key.as_str()), |(p, n)| (Some(p), n));
        let prefix_ok = prefix.is_none_or(|p| {
            !p.is_empty()
                && p.len() <= 253
                && p.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
        });
        if !prefix_ok || name.is_empty() || !word(name) {
            return Err(LabelError::Key(key.chars().take(80).collect()));
        }
        if !word(value) {
            return Err(LabelError::Value(value.chars().take(80).collect()));
        }
    }
    Ok(())
}

fn word(s: &str) -> bool {
    let bytes = s.as_bytes();
    bytes.len() <= 63
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && bytes.first().is_none_or(u8::is_ascii_alphanumeric)
        && bytes.last().is_none_or(u8::is_ascii_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_label_rules() {
        let one = |k: &str, v: &str| Labels::from([(k.to_owned(), v.to_owned())]);
        for (k, v) in [("line", "bottling"), ("ballast.dev/site", "A_1.b"), ("a", "")] {
            assert_eq!(check(&one(k, v)), Ok(()), "{k}={v}");
        }
        for (k, v) in [("", "x"), ("/a", "x"), ("a/", "x"), ("a b", "x"), ("a", "x&y=z"), ("a", "-x"), ("A/b", "x")] {
            assert!(check(&one(k, v)).is_err(), "{k}={v}");
        }
        let many = (0..33).map(|i| (format!("l{i}"), String::new())).collect();
        assert_eq!(check(&many), Err(LabelError::TooMany(33)));
    }
}
