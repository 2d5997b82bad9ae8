//! The two kinds of 16-bit floats, by their bits.

/// A half; exact.
#[inline(always)]
pub fn from_f16(bits: u16) -> f32 {
    // The bits of a half one place below those of an f32 are that half times 2⁻¹¹²: the product puts the exponent right, and
    // numbers below the smallest normal half with it.
    let size = f32::from_bits(u32::from(bits & 0x7fff) << 13) * f32::from_bits((127 + 112) << 23);
    let special = bits & 0x7c00 == 0x7c00;
    let size = if special { size.to_bits() | 0x7f80_0000 } else { size.to_bits() };
    f32::from_bits(size | u32::from(bits >> 15) << 31)
}

/// The nearest half, ties to even; infinite beyond the largest. Every NaN is 0x7e00.
#[inline(always)]
pub fn to_f16(x: f32) -> u16 {
    let sign = (x.to_bits() >> 16) as u16 & 0x8000;
    let bits = x.to_bits() & 0x7fff_ffff;
    if bits > 0x7f80_0000 {
        return 0x7e00;
    }
    // 65,520 is half a step above the largest.
    if bits >= 0x477f_f000 {
        return sign | 0x7c00;
    }
    if bits < 113 << 23 {
        // Subnormal: added to ½, the last place of the sum counts 2⁻²⁴.
        return sign | ((f32::from_bits(bits) + 0.5).to_bits() - 0x3f00_0000) as u16;
    }
    sign | (((bits + 0xfff + (bits >> 13 & 1)) >> 13) - (112 << 10)) as u16
}

/// An upper half; exact.
#[inline(always)]
pub fn from_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The nearest upper half, ties to even. Every NaN is 0x7fc0.
#[inline(always)]
pub fn to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    if bits & 0x7fff_ffff > 0x7f80_0000 {
        return 0x7fc0;
    }
    (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_come_back_and_what_lies_between_goes_to_the_nearest() {
        for bits in 0..=u16::MAX {
            assert!(from_f16(bits).is_nan() || to_f16(from_f16(bits)) == bits, "{bits:x}");
            assert!(from_bf16(bits).is_nan() || to_bf16(from_bf16(bits)) == bits, "{bits:x}");
        }
        assert_eq!([from_f16(0x3c00), from_f16(0xc000), from_f16(0x0001)], [1.0, -2.0, 1.0 / 16_777_216.0]);
        assert_eq!([from_f16(0x7c00), from_f16(0x7bff)], [f32::INFINITY, 65_504.0]);
        // Ties, above and below them: between 1 and its neighbours, and between two subnormals.
        let ulp = 1.0 / 1024.0;
        assert_eq!([1.0 + ulp / 2.0, 1.0 + ulp * 0.51, 1.0 + ulp * 1.5].map(to_f16), [0x3c00, 0x3c01, 0x3c02]);
        let tiny = 1.0 / 16_777_216.0;
        assert_eq!([tiny * 0.5, tiny * 0.51, tiny * 1.5, -tiny * 2.5].map(to_f16), [0, 1, 2, 0x8002]);
        assert_eq!([65_519.0, 65_520.0, -1e9, f32::NAN].map(to_f16), [0x7bff, 0x7c00, 0xfc00, 0x7e00]);
        assert_eq!([1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, f32::MAX].map(to_bf16), [0x3f80, 0x3f82, 0x7f80]);
    }
}
