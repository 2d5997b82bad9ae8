//! Elementary functions over vectors. Ranges are reduced and approximated as in the Cephes library's single-precision
//! routines (S. Moshier), whose published coefficients these are; errors stay within a few units in the last place, `pow`'s
//! grows with the exponent. NaN goes through.
#![allow(
    clippy::excessive_precision,
    clippy::approx_constant,
    reason = "coefficients are written as published; each fit has its own, and a constant that one resembles is not it"
)]

use crate::simd::Simd;

#[inline(always)]
unsafe fn horner<S: Simd>(x: S::F, coefficients: &[f32]) -> S::F {
    let mut y = S::splat(coefficients[0]);
    for &c in &coefficients[1..] {
        y = S::fma(y, x, S::splat(c));
    }
    y
}

/// eˣ
#[inline(always)]
pub unsafe fn exp<S: Simd>(x: S::F) -> S::F {
    // Beyond these the result is 0 or infinite in any case.
    let x = S::max_bound(S::min_bound(x, S::splat(89.0)), S::splat(-104.0));
    let n = S::round(S::mul(x, S::splat(core::f32::consts::LOG2_E)));
    let r = S::fma(n, S::splat(-0.693_359_375), x);
    let r = S::fma(n, S::splat(2.121_944_4e-4), r);
    let p =
        horner::<S>(r, &[1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5.000_000_1e-1]);
    let y = S::add(S::fma(p, S::mul(r, r), r), S::splat(1.0));
    // In two factors, so that the ends of the range neither overflow early nor lose their denormals.
    let half = S::floor(S::mul(n, S::splat(0.5)));
    S::mul(S::mul(y, S::pow2(half)), S::pow2(S::sub(n, half)))
}

/// Natural logarithm; −∞ at 0, NaN below.
#[inline(always)]
pub unsafe fn log<S: Simd>(x: S::F) -> S::F {
    let tiny = S::less(x, S::splat(f32::MIN_POSITIVE));
    let scaled = S::select(tiny, S::mul(x, S::splat(8_388_608.0)), x);
    let (m, e) = S::split(scaled);
    let e = S::sub(e, S::and(tiny, S::splat(23.0)));
    let big = S::less(S::splat(core::f32::consts::SQRT_2), m);
    let m = S::select(big, S::mul(m, S::splat(0.5)), m);
    let e = S::add(e, S::and(big, S::splat(1.0)));
    let r = S::sub(m, S::splat(1.0));
    let z = S::mul(r, r);
    let p = horner::<S>(
        r,
        &[
            7.037_683_6e-2,
            -1.151_461e-1,
            1.167_699_84e-1,
            -1.242_014_1e-1,
            1.424_932_3e-1,
            -1.666_805_8e-1,
            2.000_071_5e-1,
            -2.499_999_4e-1,
            3.333_333e-1,
        ],
    );
    let y = S::mul(S::mul(p, r), z);
    let y = S::fma(e, S::splat(-2.121_944_4e-4), y);
    let y = S::fma(S::splat(-0.5), z, y);
    let y = S::fma(e, S::splat(0.693_359_375), S::add(r, y));
    let y = S::select(S::equal(x, S::splat(0.0)), S::splat(f32::NEG_INFINITY), y);
    let y = S::select(S::equal(x, S::splat(f32::INFINITY)), x, y);
    // Below zero, and NaN itself.
    S::select(S::less_equal(S::splat(0.0), x), y, S::splat(f32::NAN))
}

/// Hyperbolic tangent.
#[inline(always)]
pub unsafe fn tanh<S: Simd>(x: S::F) -> S::F {
    let a = S::abs(x);
    let z = S::mul(x, x);
    let p = horner::<S>(z, &[-5.704_988_7e-3, 2.063_908_9e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328_2e-1]);
    let near = S::fma(S::mul(p, z), x, x);
    let e = exp::<S>(S::add(a, a));
    let far = S::sub(S::splat(1.0), S::div(S::splat(2.0), S::add(e, S::splat(1.0))));
    let far = S::or(far, S::and(x, S::splat(-0.0)));
    S::select(S::less(a, S::splat(0.625)), near, far)
}

/// 1 ÷ (1 + e⁻ˣ)
#[inline(always)]
pub unsafe fn sigmoid<S: Simd>(x: S::F) -> S::F {
    S::div(S::splat(1.0), S::add(S::splat(1.0), exp::<S>(S::neg(x))))
}

/// Gauss error function.
#[inline(always)]
pub unsafe fn erf<S: Simd>(x: S::F) -> S::F {
    let a = S::abs(x);
    let z = S::mul(x, x);
    let near = horner::<S>(
        z,
        &[
            7.853_861_4e-5,
            -8.010_193_6e-4,
            5.188_327_6e-3,
            -2.685_381_2e-2,
            1.128_358_5e-1,
            -3.761_262_6e-1,
            1.128_379_2,
        ],
    );
    let near = S::mul(near, x);
    let q = S::div(S::splat(1.0), S::max_bound(a, S::splat(1.0)));
    let y = S::mul(q, q);
    let middle = horner::<S>(
        y,
        &[
            2.326_82e-2,
            -1.387_039_4e-1,
            3.687_424_7e-1,
            -5.824_733e-1,
            6.210_004_6e-1,
            -4.944_515_3e-1,
            3.404_88e-1,
            -2.741_127e-1,
            5.638_259_4e-1,
        ],
    );
    let outer = horner::<S>(
        y,
        &[
            -1.047_766_4e1,
            1.297_72e1,
            -7.495_518_7,
            2.921_019,
            -1.015_265_3,
            4.218_463_4e-1,
            -2.820_767_4e-1,
            5.641_895e-1,
        ],
    );
    let p = S::select(S::less(a, S::splat(2.0)), middle, outer);
    let complement = S::mul(S::mul(exp::<S>(S::neg(z)), q), p);
    let far = S::or(S::sub(S::splat(1.0), complement), S::and(x, S::splat(-0.0)));
    S::select(S::less(a, S::splat(1.0)), near, far)
}

/// Sine of `x + quarters · π/2`; exact enough for |x| up to a few thousand.
#[inline(always)]
pub unsafe fn sin<S: Simd>(x: S::F, quarters: f32) -> S::F {
    let n = S::round(S::mul(x, S::splat(core::f32::consts::FRAC_2_PI)));
    // π/2 in three parts, each with few enough bits that its product with n is exact.
    let r = S::fma(n, S::splat(-1.570_312_5), x);
    let r = S::fma(n, S::splat(-4.837_513e-4), r);
    let r = S::fma(n, S::splat(-7.549_79e-8), r);
    let z = S::mul(r, r);
    let sine = horner::<S>(z, &[-1.951_529_6e-4, 8.332_161e-3, -1.666_665_5e-1]);
    let sine = S::fma(S::mul(sine, z), r, r);
    let cosine = horner::<S>(z, &[2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2, -0.5, 1.0]);
    let quarter = S::add(n, S::splat(quarters));
    let quarter = S::sub(quarter, S::mul(S::floor(S::mul(quarter, S::splat(0.25))), S::splat(4.0)));
    let odd = S::or(S::equal(quarter, S::splat(1.0)), S::equal(quarter, S::splat(3.0)));
    let y = S::select(odd, cosine, sine);
    S::select(S::less(S::splat(1.5), quarter), S::neg(y), y)
}

/// Inverse tangent.
#[inline(always)]
pub unsafe fn atan<S: Simd>(x: S::F) -> S::F {
    let a = S::abs(x);
    // Beyond tan 3π/8, and beyond tan π/8, the angle is taken from π/2 and from π/4.
    let (far, middle) = (S::less(S::splat(2.414_213_5), a), S::less(S::splat(0.414_213_57), a));
    let one = S::splat(1.0);
    let middle_t = S::div(S::sub(a, one), S::add(a, one));
    let t = S::select(far, S::div(S::splat(-1.0), a), S::select(middle, middle_t, a));
    let base =
        S::select(far, S::splat(core::f32::consts::FRAC_PI_2), S::and(middle, S::splat(core::f32::consts::FRAC_PI_4)));
    let z = S::mul(t, t);
    let p = horner::<S>(z, &[8.053_744_5e-2, -1.387_768_6e-1, 1.997_771e-1, -3.333_294_9e-1]);
    let y = S::add(base, S::fma(S::mul(p, z), t, t));
    S::or(y, S::and(x, S::splat(-0.0)))
}

/// aᵇ
#[inline(always)]
pub unsafe fn pow<S: Simd>(a: S::F, b: S::F) -> S::F {
    let size = exp::<S>(S::mul(b, log::<S>(S::abs(a))));
    let whole = S::equal(S::trunc(b), b);
    let half = S::mul(b, S::splat(0.5));
    let odd = S::and_not(S::equal(S::trunc(half), half), whole);
    let negative = S::less(a, S::splat(0.0));
    let signed = S::select(odd, S::neg(size), size);
    let below = S::select(whole, signed, S::splat(f32::NAN));
    let y = S::select(negative, below, size);
    S::select(S::equal(b, S::splat(0.0)), S::splat(1.0), y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Scalar;

    type Function = unsafe fn([f32; 4]) -> [f32; 4];

    fn check(name: &str, f: Function, exact: impl Fn(f64) -> f64, inputs: impl Iterator<Item = f32>, tolerance: f64) {
        for x in inputs {
            let y = f64::from(unsafe { f([x; 4]) }[0]);
            let want = exact(f64::from(x));
            let error = (y - want).abs() / want.abs().max(1e-30);
            assert!(error <= tolerance || (y - want).abs() < 1e-37, "{name}({x}) = {y}, not {want}: {error:e}");
        }
    }

    fn range(from: f32, to: f32) -> impl Iterator<Item = f32> {
        (0..=4000).map(move |i| from + (to - from) * i as f32 / 4000.0)
    }

    /// By its series: exact in f64 for the arguments asked for here.
    fn erf_exact(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    }

    #[test]
    fn functions_agree_with_double_precision() {
        check("exp", exp::<Scalar>, f64::exp, range(-87.0, 88.7), 3e-7);
        check("log", log::<Scalar>, f64::ln, range(1.1, 1e6), 3e-7);
        check("log", log::<Scalar>, f64::ln, range(1e-6, 0.9), 3e-7);
        check("tanh", tanh::<Scalar>, f64::tanh, range(-12.0, 12.0), 3e-7);
        check("sigmoid", sigmoid::<Scalar>, |x| 1.0 / (1.0 + (-x).exp()), range(-30.0, 30.0), 5e-7);
        check("erf", erf::<Scalar>, erf_exact, range(-3.5, 3.5), 4e-7);
        check("atan", atan::<Scalar>, f64::atan, range(-9.0, 9.0), 3e-7);
        let (sin, cos): (Function, Function) =
            (|x| unsafe { sin::<Scalar>(x, 0.0) }, |x| unsafe { sin::<Scalar>(x, 1.0) });
        let off = |f: Function, exact: fn(f64) -> f64| {
            range(-100.0, 100.0)
                .map(|x| (f64::from(unsafe { f([x; 4]) }[0]) - exact(f64::from(x))).abs())
                .fold(0.0, f64::max)
        };
        assert!(off(sin, f64::sin) < 3e-7 && off(cos, f64::cos) < 3e-7);
    }

    #[test]
    fn the_ends_of_the_number_line_are_right() {
        let one = |f: Function, x: f32| unsafe { f([x; 4]) }[0];
        assert_eq!(one(exp::<Scalar>, f32::INFINITY), f32::INFINITY);
        assert_eq!(one(exp::<Scalar>, 100.0), f32::INFINITY);
        assert_eq!(one(exp::<Scalar>, f32::NEG_INFINITY), 0.0);
        assert_eq!(one(exp::<Scalar>, 0.0), 1.0);
        assert_eq!(one(log::<Scalar>, 0.0), f32::NEG_INFINITY);
        assert_eq!(one(log::<Scalar>, f32::INFINITY), f32::INFINITY);
        assert!(one(log::<Scalar>, -1.0).is_nan());
        assert_eq!(one(tanh::<Scalar>, 90.0), 1.0);
        assert_eq!(one(tanh::<Scalar>, -90.0), -1.0);
        assert_eq!(one(erf::<Scalar>, -9.0), -1.0);
        assert_eq!(one(atan::<Scalar>, f32::NEG_INFINITY), -std::f32::consts::FRAC_PI_2);
        let all = [exp::<Scalar>, log::<Scalar>, tanh::<Scalar>, sigmoid::<Scalar>, erf::<Scalar>, atan::<Scalar>];
        for f in all as [Function; 6] {
            assert!(one(f, f32::NAN).is_nan());
        }
        let pow = |a: f32, b: f32| unsafe { pow::<Scalar>([a; 4], [b; 4]) }[0];
        assert!((pow(-2.0, 3.0) + 8.0).abs() < 1e-5 && (pow(-2.0, 2.0) - 4.0).abs() < 1e-5);
        assert_eq!([pow(0.0, 2.0), pow(0.0, 0.0), pow(0.0, -1.0)], [0.0, 1.0, f32::INFINITY]);
        assert!(pow(-2.0, 0.5).is_nan());
    }
}
