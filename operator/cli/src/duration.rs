//! Durations and sizes as Kubernetes writes them.

use std::str::FromStr;

use ballast_crds::{ByteQuantity, Span};

/// Milliseconds, from `200ms`, `10s`, `1h30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Millis(pub u64);

impl FromStr for Millis {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        Span::from(s).millis().map(Self).map_err(|e| e.to_string())
    }
}

/// Bytes, from `256Mi`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        ByteQuantity::from(s).bytes().map(Self).map_err(|e| e.to_string())
    }
}

/// `1.5 MiB`.
pub fn bytes(n: u64) -> String {
    let mut value = n as f64;
    for unit in ["B", "KiB", "MiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{n} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_kubernetes_own() {
        assert_eq!("1h30m".parse(), Ok(Millis(5_400_000)));
        assert_eq!("256Mi".parse(), Ok(Bytes(256 << 20)));
        assert!("five minutes".parse::<Millis>().is_err());
        assert_eq!((bytes(0), bytes(1536), bytes(3 << 30)), ("0 B".into(), "1.5 KiB".into(), "3.0 GiB".into()));
    }
}
