//! Fast Fourier transforms of any length, made of slices, sums and products by tables: mixed radix as Cooley and Tukey (1965)
//! have it, every pass in Stockham's order, and Bluestein's convolution (1970) where a length has large prime factors.
//!
//! Sums are paired as textbooks pair them (radix 4 and 2, odd radices by mirrored pairs), in the type of the signal: what cancels
//! exactly by hand cancels exactly here, which a product with a matrix of sines does not do.

use std::cmp::Ordering;
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_PI_2};

use crate::ir::{BinaryOp, DType, Data, Tensor, ValueId};

use super::super::build::{Builder, Result, invalid};
use super::compose::{bounded, cut, join, mirror, pad_along};

/// Largest prime that is a pass of its own; its work grows with the square.
const LARGEST_FACTOR: usize = 13;

/// Real and imaginary parts, of one shape. Signals are `[n, rows]`: transformed along the first dimension, so that every step
/// works on neighbours.
#[derive(Debug, Clone, Copy)]
pub(super) struct Complex {
    pub(super) re: ValueId,
    pub(super) im: ValueId,
}

impl Complex {
    /// The same of both parts.
    pub(super) fn map(
        self,
        b: &mut Builder,
        mut f: impl FnMut(&mut Builder, ValueId) -> Result<ValueId>,
    ) -> Result<Self> {
        Ok(Self { re: f(b, self.re)?, im: f(b, self.im)? })
    }

    pub(super) fn scale(self, b: &mut Builder, by: f64) -> Result<Self> {
        self.map(b, |b, x| b.with(BinaryOp::Mul, x, by))
    }

    fn add(self, b: &mut Builder, other: Self) -> Result<Self> {
        Ok(Self { re: b.binary(BinaryOp::Add, self.re, other.re)?, im: b.binary(BinaryOp::Add, self.im, other.im)? })
    }

    fn sub(self, b: &mut Builder, other: Self) -> Result<Self> {
        Ok(Self { re: b.binary(BinaryOp::Sub, self.re, other.re)?, im: b.binary(BinaryOp::Sub, self.im, other.im)? })
    }

    fn times(self, b: &mut Builder, other: Self) -> Result<Self> {
        let (rr, ii) = (b.binary(BinaryOp::Mul, self.re, other.re)?, b.binary(BinaryOp::Mul, self.im, other.im)?);
        let (ri, ir) = (b.binary(BinaryOp::Mul, self.re, other.im)?, b.binary(BinaryOp::Mul, self.im, other.re)?);
        Ok(Self { re: b.binary(BinaryOp::Sub, rr, ii)?, im: b.binary(BinaryOp::Add, ri, ir)? })
    }

    /// Times `i`, or `−i`.
    fn quarter(self, b: &mut Builder, sign: f64) -> Result<Self> {
        let negative = |b: &mut Builder, x| b.with(BinaryOp::Mul, x, -1.0);
        Ok(if sign > 0.0 {
            Self { re: negative(b, self.im)?, im: self.re }
        } else {
            Self { re: self.im, im: negative(b, self.re)? }
        })
    }
}

/// `(cos, sin)` of `a ÷ n` turns. The angle is reduced exactly to an eighth of a turn, so that what is symmetric is so to the last bit.
fn turn(a: usize, n: usize) -> (f64, f64) {
    let a = a % n;
    let (quarter, rest) = (4 * a / n, 4 * a % n);
    let angle = |part: usize| FRAC_PI_2 * part as f64 / n as f64;
    let (cos, sin) = match (2 * rest).cmp(&n) {
        Ordering::Less => (libm::cos(angle(rest)), libm::sin(angle(rest))),
        Ordering::Equal => (FRAC_1_SQRT_2, FRAC_1_SQRT_2),
        Ordering::Greater => (libm::sin(angle(n - rest)), libm::cos(angle(n - rest))),
    };
    match quarter {
        0 => (cos, sin),
        1 => (-sin, cos),
        2 => (-cos, -sin),
        _ => (sin, -cos),
    }
}

/// A constant of these numbers.
fn table(b: &mut Builder, dtype: DType, shape: Vec<usize>, values: impl Iterator<Item = f64>) -> Result<ValueId> {
    bounded(shape.iter().product())?;
    let values: Vec<f64> = values.collect();
    Ok(b.constant(Tensor { dtype, shape, data: Data::of(dtype, &values) }))
}

/// `factor · e^(sign · 2πi · step(j) ÷ n)` for the first `len` j, in a shape of as many elements.
fn turns(
    b: &mut Builder,
    dtype: DType,
    shape: Vec<usize>,
    (n, sign, factor): (usize, f64, f64),
    step: impl Fn(usize) -> usize + Copy,
) -> Result<Complex> {
    let len = shape.iter().product();
    let re = table(b, dtype, shape.clone(), (0..len).map(|j| factor * turn(step(j), n).0))?;
    let im = table(b, dtype, shape, (0..len).map(|j| factor * sign * turn(step(j), n).1))?;
    Ok(Complex { re, im })
}

/// The passes of a transform of `n`: 4 as often as it goes, what is left of 2 first, then odd primes. `None` where one of them
/// is larger than [`LARGEST_FACTOR`].
fn radices(mut n: usize) -> Option<Vec<usize>> {
    let mut found = Vec::new();
    let (mut next, mut step) = (4, 1);
    while n > 1 {
        if next > LARGEST_FACTOR {
            return None;
        }
        if n.is_multiple_of(next) {
            n /= next;
            found.push(next);
        } else if next == 4 {
            if n.is_multiple_of(2) {
                n /= 2;
                found.insert(0, 2);
            }
            (next, step) = (3, 2);
        } else {
            next += step;
        }
    }
    Some(found)
}

/// `y[k] = Σ x[j] · e^(sign · 2πi · jk ÷ n)` along the first dimension of `[n, rows]`.
pub(super) fn transform(b: &mut Builder, x: Complex, sign: f64) -> Result<Complex> {
    let &[n, _] = b.shape(x.re) else { return invalid("a transform of another rank") };
    let Some(radices) = radices(n) else { return convolved(b, x, sign) };
    let (mut y, mut done) = (x, 1);
    for radix in radices {
        y = pass(b, y, done, radix, sign)?;
        done *= radix;
    }
    Ok(y)
}

/// One pass: `[done, radix, rest]` → `[radix, done, rest]`, butterflies over the radix, then turned by `done · c · i` steps of n.
fn pass(b: &mut Builder, x: Complex, done: usize, radix: usize, sign: f64) -> Result<Complex> {
    let &[n, rows] = b.shape(x.re) else { return invalid("a transform of another rank") };
    let dtype = b.dtype(x.re);
    let rest = n / (done * radix);
    let x = x.map(b, |b, x| b.reshape(x, vec![done, radix, rest, rows]))?;
    let parts: Vec<Complex> = (0..radix).map(|c| x.map(b, |b, x| cut(b, x, 1, c, 1, 1))).collect::<Result<_>>()?;
    let mut parts = butterfly(b, &parts, sign)?;
    for (c, part) in parts.iter_mut().enumerate().skip(1).filter(|_| rest > 1) {
        let turned = turns(b, dtype, vec![1, 1, rest, 1], (n, sign, 1.0), |i| done * c * i)?;
        *part = part.times(b, turned)?;
    }
    let re: Vec<ValueId> = parts.iter().map(|p| p.re).collect();
    let im: Vec<ValueId> = parts.iter().map(|p| p.im).collect();
    let y = Complex { re: join(b, &re, 0)?, im: join(b, &im, 0)? };
    y.map(b, |b, y| b.reshape(y, vec![n, rows]))
}

/// The transform of as many numbers as there are: 2, 4 or an odd number.
fn butterfly(b: &mut Builder, x: &[Complex], sign: f64) -> Result<Vec<Complex>> {
    match *x {
        [x0, x1] => Ok(vec![x0.add(b, x1)?, x0.sub(b, x1)?]),
        [x0, x1, x2, x3] => {
            let (even, odd) = ((x0.add(b, x2)?, x0.sub(b, x2)?), (x1.add(b, x3)?, x1.sub(b, x3)?));
            let turned = odd.1.quarter(b, sign)?;
            Ok(vec![even.0.add(b, odd.0)?, even.1.add(b, turned)?, even.0.sub(b, odd.0)?, even.1.sub(b, turned)?])
        }
        _ => odd_butterfly(b, x, sign),
    }
}

/// `x[j]` and `x[p − j]` have the same cosine and opposite sines, and so have `y[k]` and `y[p − k]`.
fn odd_butterfly(b: &mut Builder, x: &[Complex], sign: f64) -> Result<Vec<Complex>> {
    let Some((&first, others)) = x.split_first() else { return invalid("a transform of nothing") };
    let (p, half) = (x.len(), others.len() / 2);
    let mirrored = || others.iter().zip(others.iter().rev()).take(half);
    let sums: Vec<Complex> = mirrored().map(|(x, y)| x.add(b, *y)).collect::<Result<_>>()?;
    let differences: Vec<Complex> = mirrored().map(|(x, y)| x.sub(b, *y)).collect::<Result<_>>()?;
    let mut y = vec![first; p];
    for sum in &sums {
        y[0] = y[0].add(b, *sum)?;
    }
    for k in 1..=half {
        let mut even = first;
        let mut odd: Option<Complex> = None;
        for (j, (sum, difference)) in sums.iter().zip(&differences).enumerate() {
            let (cos, sin) = turn((j + 1) * k, p);
            let part = sum.scale(b, cos)?;
            even = even.add(b, part)?;
            let part = difference.scale(b, sign * sin)?;
            odd = Some(match odd {
                Some(odd) => odd.add(b, part)?,
                None => part,
            });
        }
        let Some(odd) = odd else { continue };
        let turned = odd.quarter(b, 1.0)?;
        (y[k], y[p - k]) = (even.add(b, turned)?, even.sub(b, turned)?);
    }
    Ok(y)
}

/// A transform as a convolution with a chirp, `jk = (j² + k² − (k − j)²) ÷ 2`: by transforms of a length that has small factors.
fn convolved(b: &mut Builder, x: Complex, sign: f64) -> Result<Complex> {
    let &[n, rows] = b.shape(x.re) else { return invalid("a transform of another rank") };
    let dtype = b.dtype(x.re);
    let longer = 2 * n - 1;
    let Some(m) = (longer..=2 * longer).find(|m| is_smooth(*m)) else { return invalid("a transform of nothing") };
    let squared = move |j: usize| j * j % (2 * n);
    let chirp = turns(b, dtype, vec![n, 1], (2 * n, sign, 1.0), squared)?;
    // Known now, and of f64, so that what is rounded is the result alone. Both ends of the chirp, zeros between.
    let place = move |j: usize| if j < n { Some(j) } else { (m - j < n).then(|| m - j) };
    let at = |part: fn((f64, f64)) -> f64| move |j: usize| place(j).map_or(0.0, |j| part(turn(squared(j), 2 * n)));
    let re = table(b, DType::F64, vec![m, 1], (0..m).map(at(|(cos, _)| cos)))?;
    let im = table(b, DType::F64, vec![m, 1], (0..m).map(at(|(_, sin)| sin)).map(|sin| -sign * sin))?;
    let kernel = transform(b, Complex { re, im }, -1.0)?.scale(b, 1.0 / m as f64)?;
    let kernel = kernel.map(b, |b, x| b.cast(x, dtype))?;
    let y = x.times(b, chirp)?.map(b, |b, x| pad_along(b, x, 0, (0, (m - n) as isize), 0.0))?;
    let y = transform(b, y, -1.0)?.times(b, kernel)?;
    let y = transform(b, y, 1.0)?.map(b, |b, y| cut(b, y, 0, 0, n, 1))?;
    let y = y.times(b, chirp)?;
    y.map(b, |b, y| b.reshape(y, vec![n, rows]))
}

/// Whether there is no prime factor above 5.
fn is_smooth(mut n: usize) -> bool {
    for p in [2, 3, 5] {
        while n > 0 && n.is_multiple_of(p) {
            n /= p;
        }
    }
    n == 1
}

/// As many zeros.
pub(super) fn zeros(b: &mut Builder, like: ValueId) -> Result<ValueId> {
    let n = b.shape(like).first().map_or(0, |n| *n as isize);
    pad_along(b, like, 0, (-n, n), 0.0)
}

/// A real signal's first `n ÷ 2 + 1` frequencies: `[n, rows]` in, the others are their conjugates. An even number of reals is
/// transformed as half as many complex numbers.
pub(super) fn of_real(b: &mut Builder, x: ValueId) -> Result<Complex> {
    let &[n, rows] = b.shape(x) else { return invalid("a transform of another rank") };
    let half = n / 2;
    if !n.is_multiple_of(2) {
        let im = zeros(b, x)?;
        return transform(b, Complex { re: x, im }, -1.0)?.map(b, |b, y| cut(b, y, 0, 0, half + 1, 1));
    }
    let pairs = b.reshape(x, vec![half, 2, rows])?;
    let mut part = |at| {
        let part = cut(b, pairs, 1, at, 1, 1)?;
        b.reshape(part, vec![half, rows])
    };
    let packed = Complex { re: part(0)?, im: part(1)? };
    let y = transform(b, packed, -1.0)?;
    // What comes after the last is the first again.
    let y = y.map(b, |b, y| {
        let first = cut(b, y, 0, 0, 1, 1)?;
        join(b, &[y, first], 0)
    })?;
    let (even, odd) = separated(b, y, (n, -1.0))?;
    Ok(Complex { re: b.binary(BinaryOp::Add, even.re, odd.im)?, im: b.binary(BinaryOp::Sub, even.im, odd.re)? })
}

/// All `n` frequencies of a real signal, from the first `n ÷ 2 + 1`.
pub(super) fn whole(b: &mut Builder, y: Complex, n: usize) -> Result<Complex> {
    let others = (n - 1) / 2;
    let tail = y.map(b, |b, y| {
        let tail = cut(b, y, 0, 1, others, 1)?;
        mirror(b, tail, 0)
    })?;
    let im = b.with(BinaryOp::Mul, tail.im, -1.0)?;
    Ok(Complex { re: join(b, &[y.re, tail.re], 0)?, im: join(b, &[y.im, im], 0)? })
}

/// The real signal of `n` that has these first `n ÷ 2 + 1` frequencies: `[n ÷ 2 + 1, rows]` to `[n, rows]`. The imaginary parts
/// that a real signal has not (of the first, and of the last where `n` is even) are not read.
pub(super) fn to_real(b: &mut Builder, x: Complex, n: usize) -> Result<ValueId> {
    let &[_, rows] = b.shape(x.re) else { return invalid("a transform of another rank") };
    let half = n / 2;
    let inner = (n - 1) / 2;
    let im = cut(b, x.im, 0, 1, inner, 1)?;
    let im = pad_along(b, im, 0, (1, (half - inner) as isize), 0.0)?;
    let x = Complex { re: x.re, im };
    if !n.is_multiple_of(2) {
        let x = whole(b, x, n)?;
        let y = transform(b, x, 1.0)?;
        return b.with(BinaryOp::Mul, y.re, 1.0 / n as f64);
    }
    let (even, odd) = separated(b, x, (n, 1.0))?;
    let packed =
        Complex { re: b.binary(BinaryOp::Sub, even.re, odd.im)?, im: b.binary(BinaryOp::Add, even.im, odd.re)? };
    let packed = packed.map(b, |b, x| cut(b, x, 0, 0, half, 1))?;
    let y = transform(b, packed, 1.0)?.scale(b, 1.0 / half as f64)?;
    let y = y.map(b, |b, y| b.reshape(y, vec![half, 1, rows]))?;
    let y = join(b, &[y.re, y.im], 1)?;
    b.reshape(y, vec![n, rows])
}

/// Of `m + 1` frequencies, k beside the conjugate of m − k: half their sum, which is what even elements have; and half their
/// difference, turned by `sign · k` steps of n, which is `i` times what odd ones have.
fn separated(b: &mut Builder, x: Complex, (n, sign): (usize, f64)) -> Result<(Complex, Complex)> {
    let image = x.map(b, |b, x| mirror(b, x, 0))?;
    let (re, im) = (b.binary(BinaryOp::Add, x.re, image.re)?, b.binary(BinaryOp::Sub, x.im, image.im)?);
    let even = Complex { re, im }.scale(b, 0.5)?;
    let (re, im) = (b.binary(BinaryOp::Sub, x.re, image.re)?, b.binary(BinaryOp::Add, x.im, image.im)?);
    let shape = vec![b.shape(x.re)[0], 1];
    let turned = turns(b, b.dtype(x.re), shape, (n, sign, 0.5), |k| k)?;
    let odd = Complex { re, im }.times(b, turned)?;
    Ok((even, odd))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_symmetric_to_the_last_bit() {
        for n in 1..50 {
            for a in 0..2 * n {
                let (cos, sin) = turn(a, n);
                let angle = std::f64::consts::TAU * (a % n) as f64 / n as f64;
                assert!((cos - angle.cos()).abs() < 1e-14 && (sin - angle.sin()).abs() < 1e-14, "{a} of {n}");
                let (back_cos, back_sin) = turn(2 * n - a, n);
                assert_eq!((cos, sin), (back_cos, -back_sin), "{a} of {n}");
            }
        }
        assert_eq!([turn(1, 4), turn(2, 4), turn(1, 2)], [(0.0, 1.0), (-1.0, 0.0), (-1.0, 0.0)]);
    }

    #[test]
    fn passes_multiply_to_the_length() {
        for n in 1..3000 {
            let Some(found) = radices(n) else {
                assert!((17..=n).any(|p| n.is_multiple_of(p) && (2..p).all(|d| p % d != 0)), "{n}");
                continue;
            };
            assert_eq!(found.iter().product::<usize>(), n);
            assert!(found.iter().all(|r| [2, 3, 4, 5, 7, 11, 13].contains(r)), "{n}: {found:?}");
            assert!(found.iter().skip(1).all(|r| *r != 2), "{n}: {found:?}");
        }
    }

    /// Against the definition, in f64.
    #[test]
    fn every_length_is_transformed_there_and_back() {
        for n in (1..40).chain([60, 77, 97, 128, 169, 210, 289]) {
            let signal = |i: usize| ((i * i * 7 + 3 * i) % 11) as f64 - 4.5;
            let b = &mut Builder::default();
            let re = table(b, DType::F64, vec![n, 1], (0..n).map(signal)).unwrap();
            let im = table(b, DType::F64, vec![n, 1], (0..n).map(|i| signal(i + 5))).unwrap();
            let known = |b: &Builder, id| b.known(id).unwrap().doubles().to_vec();
            let close = |found: &[f64], wanted: &[f64], what: &str| {
                assert_eq!(found.len(), wanted.len(), "{what} of {n}");
                let near = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-9;
                assert!(found.iter().zip(wanted).all(near), "{what} of {n}: {found:?}, expected {wanted:?}");
            };
            for sign in [1.0, -1.0] {
                let y = transform(b, Complex { re, im }, sign).unwrap();
                let wanted: Vec<(f64, f64)> = (0..n)
                    .map(|k| {
                        (0..n).fold((0.0, 0.0), |(re, im), j| {
                            let angle = sign * std::f64::consts::TAU * (j * k % n) as f64 / n as f64;
                            let (x, y, c, s) = (signal(j), signal(j + 5), angle.cos(), angle.sin());
                            (re + x * c - y * s, im + x * s + y * c)
                        })
                    })
                    .collect();
                close(&known(b, y.re), &wanted.iter().map(|w| w.0).collect::<Vec<_>>(), "real parts");
                close(&known(b, y.im), &wanted.iter().map(|w| w.1).collect::<Vec<_>>(), "imaginary parts");
            }
            let im = zeros(b, re).unwrap();
            let all = transform(b, Complex { re, im }, -1.0).unwrap();
            let real = of_real(b, re).unwrap();
            let found = whole(b, real, n).unwrap();
            close(&known(b, found.re), &known(b, all.re), "real parts of reals");
            close(&known(b, found.im), &known(b, all.im), "imaginary parts of reals");
            let back = to_real(b, real, n).unwrap();
            close(&known(b, back), &known(b, re), "the signal");
        }
    }
}
