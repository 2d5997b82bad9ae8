//! Halves as they lie in tensors: IEEE 754 binary16 (`FP16`) and its neighbour with the exponent of an f32 (`BF16`).

/// The number that an `FP16` is; exact.
pub fn from_fp16(bits: u16) -> f32 {
    let sign = u32::from(bits >> 15) << 31;
    let (exponent, fraction) = (u32::from(bits >> 10 & 0x1f), u32::from(bits & 0x3ff));
    match exponent {
        // Zero and subnormals: fraction · 2⁻²⁴, exact in f32.
        0 => f32::from_bits((fraction as f32 / 16_777_216.0).to_bits() | sign),
        31 => f32::from_bits(sign | 0x7f80_0000 | fraction << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}

/// The nearest `FP16`, halves to even; beyond its largest number infinite. Every NaN is the one of 0x7e00.
pub fn to_fp16(x: f32) -> u16 {
    let sign = (x.to_bits() >> 16) as u16 & 0x8000;
    let size = x.abs();
    let bits = size.to_bits();
    if size.is_nan() {
        return 0x7e00;
    }
    // From here on the nearest is infinite: half a step above 65,504.
    if size >= 65_520.0 {
        return sign | 0x7c00;
    }
    if size < 1.0 / 16_384.0 {
        // Adding ½ leaves steps of 2⁻²⁴ in the last place, which is what subnormals count.
        return sign | (((size + 0.5).to_bits() - 0.5f32.to_bits()) as u16);
    }
    let even = bits >> 13 & 1;
    sign | (((bits + 0xfff + even) >> 13) - (112 << 10)) as u16
}

/// The number that a `BF16` is; exact.
pub const fn from_bf16(bits: u16) -> f32 {
    f32::from_bits((bits as u32) << 16)
}

/// The nearest `BF16`, halves to even. Every NaN is the one of 0x7fc0.
pub const fn to_bf16(x: f32) -> u16 {
    if x.is_nan() {
        return 0x7fc0;
    }
    let bits = x.to_bits();
    (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The nearest of all halves by trying them all.
    fn nearest(x: f32, from: fn(u16) -> f32, infinite: u16) -> u16 {
        let (mut best, mut off) = (0, f64::INFINITY);
        for bits in (0..infinite).filter(|b| from(*b).is_finite()) {
            let d = (f64::from(from(bits)) - f64::from(x.abs())).abs();
            if d < off || d == off && bits % 2 == 0 {
                (best, off) = (bits, d);
            }
        }
        best | if x.is_sign_negative() { 0x8000 } else { 0 }
    }

    #[test]
    fn every_half_survives_and_others_go_to_the_nearest() {
        for bits in 0..=u16::MAX {
            let x = from_fp16(bits);
            assert!(x.is_nan() || to_fp16(x) == bits, "{bits:x}");
            let x = from_bf16(bits);
            assert!(x.is_nan() || to_bf16(x) == bits, "{bits:x}");
        }
        let between = [1.000_488_3, -1.000_488_4, 0.1, 3e-8, 2.9e-8, -6e-5, 6.1e-5, 65_519.0, 1234.567, 0.0, -0.0];
        for x in between {
            assert_eq!(to_fp16(x), nearest(x, from_fp16, 0x7c00), "{x}");
            assert_eq!(to_bf16(x), nearest(x, from_bf16, 0x7f80), "{x}");
        }
        assert_eq!([to_fp16(65_520.0), to_fp16(-1e9), to_fp16(f32::NAN)], [0x7c00, 0xfc00, 0x7e00]);
        assert_eq!([to_bf16(f32::MAX), to_bf16(f32::NAN), to_fp16(f32::INFINITY)], [0x7f80, 0x7fc0, 0x7c00]);
    }
}
