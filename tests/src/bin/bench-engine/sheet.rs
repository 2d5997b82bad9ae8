//! Comparing outputs, and lines of figures.

use std::fmt;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use ballast_bundle::{DataType, TensorSpec, half};

/// Times of one side.
#[derive(Default)]
pub struct Times(Vec<Duration>);

impl Times {
    pub fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    fn min(&self) -> Option<f64> {
        self.0.iter().min().map(|t| t.as_secs_f64() * 1e3)
    }

    fn median(&self) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort();
        let (a, b) = (sorted.get(sorted.len().checked_sub(1)? / 2)?, sorted.get(sorted.len() / 2)?);
        Some((*a + *b).as_secs_f64() * 1e3 / 2.0)
    }
}

/// One model's figures.
pub struct Line {
    pub name: String,
    pub gflop: f64,
    pub ours: Times,
    pub theirs: Times,
}

impl Line {
    pub fn heading() -> String {
        format!(
            "{:<24} {:>9} {:>10} {:>10} {:>9} {:>10} {:>10} {:>7}",
            "model", "GFLOP", "ours min", "median", "GFLOP/s", "peer min", "median", "ratio"
        )
    }

    /// Of medians, ours to the peer's.
    pub fn ratio(&self) -> Option<f64> {
        Some(self.ours.median()? / self.theirs.median()?)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |n: Option<f64>| n.map_or("-".to_owned(), |n| format!("{n:.3}"));
        let speed = self.ours.min().map(|ms| self.gflop / ms * 1e3);
        write!(
            f,
            "{:<24} {:>9.6} {:>10} {:>10} {:>9} {:>10} {:>10} {:>7}",
            self.name,
            self.gflop,
            number(self.ours.min()),
            number(self.ours.median()),
            speed.map_or("-".to_owned(), |s| format!("{s:.1}")),
            number(self.theirs.min()),
            number(self.theirs.median()),
            number(self.ratio())
        )
    }
}

pub fn geometric_mean(ratios: &[f64]) -> Option<f64> {
    let sum: f64 = ratios.iter().map(|r| r.ln()).sum();
    (!ratios.is_empty()).then(|| (sum / ratios.len() as f64).exp())
}

/// Fails with the first element that is too far away; integers and Booleans must be equal.
pub fn compare(spec: &TensorSpec, ours: &[u8], theirs: &[u8], absolute: f64, relative: f64) -> Result<()> {
    ensure!(ours.len() == theirs.len(), "output {}: {} bytes, the peer's {}", spec.name, ours.len(), theirs.len());
    let size = spec.datatype.size();
    for (index, (a, b)) in ours.chunks_exact(size).zip(theirs.chunks_exact(size)).enumerate() {
        let (Some(x), Some(y)) = (real(spec.datatype, a), real(spec.datatype, b)) else {
            ensure!(a == b, "MISMATCH in output {}, element {index}", spec.name);
            continue;
        };
        let same = x == y || x.is_nan() && y.is_nan() || (x - y).abs() <= absolute + relative * y.abs();
        if !same {
            bail!("MISMATCH in output {}, element {index}: {x}, the peer's {y}", spec.name);
        }
    }
    Ok(())
}

fn real(datatype: DataType, bytes: &[u8]) -> Option<f64> {
    match datatype {
        DataType::Fp32 => Some(f64::from(f32::from_le_bytes(bytes.try_into().ok()?))),
        DataType::Fp64 => Some(f64::from_le_bytes(bytes.try_into().ok()?)),
        DataType::Fp16 => Some(half::from_fp16(u16::from_le_bytes(bytes.try_into().ok()?)).into()),
        DataType::Bf16 => Some(half::from_bf16(u16::from_le_bytes(bytes.try_into().ok()?)).into()),
        _ => None,
    }
}
