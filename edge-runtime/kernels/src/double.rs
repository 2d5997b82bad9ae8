//! Elementary functions of f64 for the few models that need them: short rather than fast, from series and continued fractions
//! that are exact to a few units in the last place. NaN goes through.

use core::f64::consts::{FRAC_2_PI, FRAC_PI_2, LOG2_E, PI, SQRT_2};

/// `√x`
#[inline(always)]
pub fn sqrt(x: f64) -> f64 {
    #[cfg(target_arch = "wasm32")]
    {
        use core::arch::wasm32::{f64x2_extract_lane, f64x2_splat, f64x2_sqrt};
        f64x2_extract_lane::<0>(f64x2_sqrt(f64x2_splat(x)))
    }
    #[cfg(not(target_arch = "wasm32"))]
    x.sqrt()
}

/// 2⁵²: above it every f64 is whole.
const WHOLE: f64 = 4_503_599_627_370_496.0;

/// To the nearest, halves to even.
#[inline(always)]
pub fn round(x: f64) -> f64 {
    // What is added leaves no bits behind the point. It also turns NaN and what is large away.
    if x.abs() < WHOLE { ((x.abs() + WHOLE) - WHOLE).copysign(x) } else { x }
}

/// Towards −∞.
#[inline(always)]
pub fn floor(x: f64) -> f64 {
    let near = round(x);
    if near > x { (near - 1.0).copysign(x) } else { near }
}

/// Towards zero.
#[inline(always)]
pub fn trunc(x: f64) -> f64 {
    floor(x.abs()).copysign(x)
}

/// `Σ coefficients[i] · xⁱ`
fn polynomial(x: f64, coefficients: &[f64]) -> f64 {
    coefficients.iter().rev().fold(0.0, |sum, c| sum * x + c)
}

/// 2 to a whole number, in three factors: each is a number even at the ends.
fn scaled(x: f64, n: i32) -> f64 {
    let pow2 = |n: i32| f64::from_bits(((1023 + n) as u64) << 52);
    let third = n / 3;
    x * pow2(third) * pow2(third) * pow2(n - 2 * third)
}

/// The upper bits of ln 2, few enough that whole multiples are exact.
const LN_2_HIGH: f64 = 6.931_471_803_691_238e-1;
/// The rest of ln 2.
const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;

/// eˣ
pub fn exp(x: f64) -> f64 {
    // Beyond these the result is 0 or infinite in any case.
    let held = x.clamp(-760.0, 710.0);
    let n = round(held * LOG2_E);
    let r = held - n * LN_2_HIGH - n * LN_2_LOW;
    // r is at most ½ ln 2: sixteen terms of the series.
    let (mut sum, mut i) = (1.0, 16.0);
    while i > 0.0 {
        sum = 1.0 + r / i * sum;
        i -= 1.0;
    }
    scaled(sum, n as i32)
}

/// Natural logarithm; −∞ at 0, NaN below.
pub fn log(x: f64) -> f64 {
    if x == 0.0 {
        return f64::NEG_INFINITY;
    }
    if !(x > 0.0 && x < f64::INFINITY) {
        return if x < 0.0 { f64::NAN } else { x };
    }
    // Numbers below the smallest normal one are lifted first.
    let (x, lifted) = if x < f64::MIN_POSITIVE { (x * WHOLE, 52) } else { (x, 0) };
    let mut e = (x.to_bits() >> 52) as i32 - 1023 - lifted;
    let mut m = f64::from_bits(x.to_bits() & 0x000f_ffff_ffff_ffff | 1023 << 52);
    if m > SQRT_2 {
        m *= 0.5;
        e += 1;
    }
    // 2 artanh(s), |s| < 0.172.
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let (mut sum, mut i) = (0.0, 23.0);
    while i > 0.0 {
        sum = sum * z + 1.0 / i;
        i -= 2.0;
    }
    let e = f64::from(e);
    e * LN_2_HIGH + (2.0 * s * sum + e * LN_2_LOW)
}

/// Hyperbolic tangent.
pub fn tanh(x: f64) -> f64 {
    let a = x.abs();
    if a < 0.7 {
        // Lambert's continued fraction.
        let (z, mut below) = (x * x, 21.0);
        let mut i = 19.0;
        while i > 0.0 {
            below = i + z / below;
            i -= 2.0;
        }
        return x / below;
    }
    let e = exp(2.0 * a);
    (1.0 - 2.0 / (e + 1.0)).copysign(x)
}

/// Gauss error function.
pub fn erf(x: f64) -> f64 {
    let (a, z) = (x.abs(), x * x);
    if a > 6.0 {
        return 1f64.copysign(x);
    }
    if a < 3.0 {
        // e^(−x²) · 2x/√π · Σ (2x²)ⁿ ÷ (1·3·5·…)
        let (mut term, mut sum, mut n) = (1.0, 1.0, 1.0);
        while term > sum * 1e-17 {
            n += 2.0;
            term *= 2.0 * z / n;
            sum += term;
        }
        return sum * exp(-z) * 2.0 * x / sqrt(PI);
    }
    // Beyond 3 (or not a number): what is missing to 1, by its continued fraction.
    let (mut below, mut n) = (a, 40.0);
    while n > 0.0 {
        below = a + n * 0.5 / below;
        n -= 1.0;
    }
    (1.0 - exp(-z) / (below * sqrt(PI))).copysign(x)
}

/// Sine of `x + quarters · π/2`; exact enough for |x| up to a million.
pub fn sin(x: f64, quarters: f64) -> f64 {
    let n = round(x * FRAC_2_PI);
    // π/2 in three parts; products with the first two are exact.
    let r = x - n * 1.570_796_326_734_125_6 - n * 6.077_100_506_303_966e-11 - n * 2.022_266_248_795_950_6e-21;
    let z = r * r;
    let quarter = n + quarters;
    let quarter = (quarter - 4.0 * floor(quarter * 0.25)) as u32;
    let odd = quarter % 2 == 1;
    // 1 − z ÷ (1·2) · (1 − z ÷ (3·4) · …), or with 2·3, 4·5, … times r.
    let (mut sum, mut i) = (1.0, if odd { 18.0 } else { 19.0 });
    while i > 1.0 {
        sum = 1.0 - z / (i * (i - 1.0)) * sum;
        i -= 2.0;
    }
    let y = if odd { sum } else { sum * r };
    if quarter >= 2 { -y } else { y }
}

/// Inverse tangent.
pub fn atan(x: f64) -> f64 {
    let a = x.abs();
    let inner = if a > 1.0 { 1.0 / a } else { a };
    // Half the angle, twice.
    let half = |t: f64| t / (1.0 + sqrt(1.0 + t * t));
    let t = half(half(inner));
    let coefficients: [f64; 13] = core::array::from_fn(|i| (1.0 - 2.0 * (i % 2) as f64) / (2 * i + 1) as f64);
    let angle = 4.0 * t * polynomial(t * t, &coefficients);
    (if a > 1.0 { FRAC_PI_2 - angle } else { angle }).copysign(x)
}

/// aᵇ
pub fn pow(a: f64, b: f64) -> f64 {
    if b == 0.0 || a == 1.0 {
        return 1.0;
    }
    let whole = trunc(b) == b;
    let odd = whole && trunc(b * 0.5) != b * 0.5;
    let size = if whole && b.abs() <= 64.0 {
        // Small whole powers are products.
        let (mut square, mut n, mut result) = (a.abs(), b.abs() as u32, 1.0);
        while n > 0 {
            if n & 1 == 1 {
                result *= square;
            }
            square *= square;
            n >>= 1;
        }
        if b < 0.0 { 1.0 / result } else { result }
    } else {
        exp(b * log(a.abs()))
    };
    if a.is_nan() || a < 0.0 && !whole && !b.is_infinite() {
        return f64::NAN;
    }
    if odd && a.is_sign_negative() { -size } else { size }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(name: &str, got: f64, want: f64, x: f64) {
        let close = got == want || got.is_nan() && want.is_nan() || (got - want).abs() <= 1e-13 * want.abs() + 1e-300;
        assert!(close, "{name}({x}) = {got:e}, not {want:e}");
    }

    #[test]
    fn functions_are_the_standard_librarys() {
        let points = (-4000..=4000).map(|i| f64::from(i) * 0.01 + 1e-3);
        for x in points {
            near("exp", exp(x), x.exp(), x);
            near("log", log(x.abs()), x.abs().ln(), x);
            near("tanh", tanh(x), x.tanh(), x);
            near("atan", atan(x), x.atan(), x);
            near("floor", floor(x), x.floor(), x);
            near("round", round(x), x.round_ties_even(), x);
            near("trunc", trunc(x), x.trunc(), x);
            assert!((sin(x, 0.0) - x.sin()).abs() < 1e-15 && (sin(x, 1.0) - x.cos()).abs() < 1e-15, "{x}");
            for b in [-2.5, -1.0, 0.3, 2.0, 3.0, 70.0] {
                near("pow", pow(x.abs(), b), x.abs().powf(b), x);
                near("pow", pow(x, b), x.powf(b), x);
            }
        }
        // Known to 20 digits.
        for (x, want) in [
            (0.1, 0.112_462_916_018_284_9),
            (1.0, 0.842_700_792_949_714_9),
            (2.5, 0.999_593_047_982_555),
            (3.5, 0.999_999_256_901_627_7),
        ] {
            near("erf", erf(x), want, x);
            near("erf", erf(-x), -want, -x);
        }
    }

    #[test]
    fn the_ends_of_the_number_line_are_right() {
        let inf = f64::INFINITY;
        assert_eq!([exp(inf), exp(-inf), exp(800.0), log(0.0), log(inf)], [inf, 0.0, inf, -inf, inf]);
        near("exp", exp(-740.0), (-740f64).exp(), -740.0);
        near("log", log(5e-324), 5e-324f64.ln(), 5e-324);
        assert_eq!([tanh(inf), tanh(-inf), erf(inf), erf(-inf)], [1.0, -1.0, 1.0, -1.0]);
        assert_eq!([atan(inf), atan(-inf)], [FRAC_PI_2, -FRAC_PI_2]);
        assert_eq!([pow(0.0, 2.0), pow(0.0, 0.0), pow(0.0, -1.0), pow(-8.0, 3.0)], [0.0, 1.0, inf, -512.0]);
        for f in [exp, log, tanh, erf, atan, floor, round, trunc, |x| sin(x, 0.0), |x| pow(x, 2.0), |x| pow(2.0, x)] {
            assert!(f(f64::NAN).is_nan());
        }
        assert!(log(-1.0).is_nan() && pow(-2.0, 0.5).is_nan());
        assert!(floor(-0.5) == -1.0 && round(-0.5).is_sign_negative() && floor(1e300) == 1e300);
    }
}
