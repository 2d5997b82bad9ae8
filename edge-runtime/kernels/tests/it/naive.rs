//! The same maths as plainly as it can be written.

use ballast_plan::step::{PoolKind, Window};

/// `[m][k] · [k][n]`.
pub fn product([m, n, k]: [usize; 3], a: &[f32], b: &[f32]) -> Vec<f32> {
    let mut out = vec![0f32; m * n];
    for i in 0..m {
        for j in 0..n {
            let sum: f64 = (0..k).map(|x| f64::from(a[i * k + x]) * f64::from(b[x * n + j])).sum();
            out[i * n + j] = sum as f32;
        }
    }
    out
}

/// The element that tap `(ky, kx)` of output `(y, x)` reads, unless it is padding.
fn element(w: &Window, plane: &[f32], [y, x, ky, kx]: [u32; 4]) -> Option<f32> {
    let row = (y * w.sh + ky * w.dh).checked_sub(w.pt).filter(|&r| r < w.ih)?;
    let col = (x * w.sw + kx * w.dw).checked_sub(w.pl).filter(|&c| c < w.iw)?;
    Some(plane[(row * w.iw + col) as usize])
}

fn each_pixel(w: &Window) -> impl Iterator<Item = (u32, u32)> {
    let ow = w.ow;
    (0..w.oh).flat_map(move |y| (0..ow).map(move |x| (y, x)))
}

fn each_tap(w: &Window) -> impl Iterator<Item = (u32, u32)> {
    let kw = w.kw;
    (0..w.kh).flat_map(move |y| (0..kw).map(move |x| (y, x)))
}

/// `[batch][groups · ic]` planes by weights `[groups · oc][ic][kh][kw]`.
pub fn conv([batch, groups, ic, oc]: [usize; 4], w: &Window, input: &[f32], weights: &[f32]) -> Vec<f32> {
    let (plane, taps) = ((w.ih * w.iw) as usize, (w.kh * w.kw) as usize);
    let mut out = Vec::new();
    for b in 0..batch {
        for o in 0..groups * oc {
            for (y, x) in each_pixel(w) {
                let mut sum = 0f64;
                for i in 0..ic {
                    let from = &input[((b * groups + o / oc) * ic + i) * plane..][..plane];
                    for (t, (ky, kx)) in each_tap(w).enumerate() {
                        let weight = weights[(o * ic + i) * taps + t];
                        sum += f64::from(element(w, from, [y, x, ky, kx]).unwrap_or(0.0) * weight);
                    }
                }
                out.push(sum as f32);
            }
        }
    }
    out
}

/// Pooling; for `MeanPadded` every tap counts.
pub fn pool(kind: PoolKind, planes: usize, w: &Window, input: &[f32]) -> Vec<f32> {
    let plane = (w.ih * w.iw) as usize;
    let mut out = Vec::new();
    for p in 0..planes {
        for (y, x) in each_pixel(w) {
            let values: Vec<f32> =
                each_tap(w).filter_map(|(ky, kx)| element(w, &input[p * plane..][..plane], [y, x, ky, kx])).collect();
            let sum: f32 = values.iter().sum();
            out.push(match kind {
                PoolKind::Max => values.iter().copied().fold(f32::NEG_INFINITY, f32::max),
                PoolKind::Mean => sum / values.len() as f32,
                PoolKind::MeanPadded => sum / (w.kh * w.kw) as f32,
            });
        }
    }
    out
}
