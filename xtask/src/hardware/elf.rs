//! The few fields of an ELF file that say what kind of machine and system it needs.

use anyhow::{Context, Result, ensure};

/// `e_machine` of aarch64.
const AARCH64: u16 = 183;
/// Segment that names the dynamic loader.
const PT_INTERP: u32 = 3;

/// Fails unless `bytes` are a 64-bit little-endian program for aarch64 that needs no dynamic loader.
pub(super) fn is_static_aarch64(bytes: &[u8]) -> Result<()> {
    ensure!(bytes.starts_with(b"\x7fELF\x02\x01"), "not a 64-bit little-endian ELF file");
    let machine = number(bytes, 18, 2)?;
    ensure!(machine == u64::from(AARCH64), "made for machine {machine}, not for aarch64");
    let (at, size, count) = (number(bytes, 32, 8)?, number(bytes, 54, 2)?, number(bytes, 56, 2)?);
    ensure!(count > 0, "no segments");
    for index in 0..count {
        let kind = number(bytes, usize::try_from(at + index * size)?, 4)?;
        ensure!(kind != u64::from(PT_INTERP), "it needs a dynamic loader");
    }
    Ok(())
}

fn number(bytes: &[u8], at: usize, size: usize) -> Result<u64> {
    let field = bytes.get(at..at + size).context("the file is cut off")?;
    Ok(field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_is_no_static_aarch64_program() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(is_static_aarch64(&own).is_err());
        assert!(is_static_aarch64(b"#!/bin/sh").is_err());
    }

    #[test]
    fn the_loader_is_found_among_the_segments() {
        let mut file = vec![0; 64 + 2 * 56];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (file[18], file[32], file[54], file[56]) = (183, 64, 56, 2);
        is_static_aarch64(&file).unwrap();
        file[64 + 56] = 3;
        assert!(is_static_aarch64(&file).unwrap_err().to_string().contains("loader"));
        file[18] = 62;
        assert!(is_static_aarch64(&file).unwrap_err().to_string().contains("machine 62"));
        assert!(is_static_aarch64(&file[..60]).is_err());
    }
}
