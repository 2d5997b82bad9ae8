//! Steps that are loops over a domain, against loops that are even plainer.

use ballast_plan::generic::{Address, Combine, Component, Contract, Pick, Put, Scan, Side, Top};
use ballast_plan::record::List;
use ballast_plan::step::ReduceKind;
use ballast_plan::{At, DType, Domain};

use crate::bench::{Bench, bytes, floats};

fn whole(seed: u64, n: usize) -> Vec<i64> {
    floats(seed, n).iter().map(|v| (v * 9.0) as i64).collect()
}

fn encoded(dtype: DType, values: &[i64]) -> Vec<u8> {
    let each = |v: &i64| match dtype {
        DType::I8 | DType::U8 => vec![*v as u8],
        DType::I32 => (*v as i32).to_le_bytes().to_vec(),
        DType::F32 => (*v as f32).to_le_bytes().to_vec(),
        DType::F64 => (*v as f64).to_le_bytes().to_vec(),
        _ => v.to_le_bytes().to_vec(),
    };
    values.iter().flat_map(each).collect()
}

/// Domains with the types that they are tried with.
const DOMAINS: [(Domain, DType); 4] =
    [(Domain::F32, DType::F32), (Domain::F64, DType::F64), (Domain::I64, DType::I32), (Domain::I64, DType::I8)];

fn expect(results: Vec<(String, Vec<u8>)>, want: &[u8], what: &str) {
    for (level, got) in results {
        assert_eq!(got, want, "{what}, {level}");
    }
}

#[test]
fn products_of_matrices_in_every_domain() {
    // Wide, deep, and longer than a strip either way.
    for [batch, m, n, k] in [[1, 1, 1, 1], [2, 3, 5, 4], [1, 2, 300, 3], [2, 3, 2, 400], [1, 1, 1, 1000]] {
        let (a, b) = (whole(1, batch * m * k), whole(2, k * n));
        let want: Vec<i64> =
            (0..batch * m * n).map(|i| (0..k).map(|l| a[i / n * k + l] * b[l * n + i % n]).sum()).collect();
        for (domain, dtype) in DOMAINS {
            let mut bench = Bench::default();
            let [km, kn] = [k as i32, n as i32];
            let left = Side {
                at: bench.arena_bytes(&encoded(dtype, &a)),
                dtype,
                outer: [0, 0, 0, km * m as i32, km, 0],
                inner: [0, 0, 0, 1],
            };
            let right = Side {
                at: bench.arena_bytes(&encoded(dtype, &b)),
                dtype,
                outer: [0, 0, 0, 0, 0, 1],
                inner: [0, 0, 0, kn],
            };
            let step = Contract {
                domain,
                kind: ReduceKind::Sum,
                outer: [1, 1, 1, batch as u32, m as u32, n as u32],
                inner: [1, 1, 1, k as u32],
                left,
                right: List::new(&[right]).unwrap(),
                dtype,
                out: bench.room(want.len() as u64 * 8),
            };
            let want = encoded(dtype, &want);
            expect(bench.run(step, step.out, want.len()), &want, &format!("{domain:?} {dtype:?} {batch} {m} {n} {k}"));
        }
    }
}

#[test]
fn reductions_of_every_kind_over_scattered_axes() {
    let dims = [3usize, 5, 4, 7];
    let x: Vec<i64> = whole(3, dims.iter().product()).iter().map(|v| v % 3 + 2).collect();
    type Naive = fn(&[i64]) -> i64;
    let kinds: [(ReduceKind, Naive); 7] = [
        (ReduceKind::Sum, |v| v.iter().sum()),
        (ReduceKind::Mean, |v| v.iter().sum::<i64>() / v.len() as i64),
        (ReduceKind::Max, |v| *v.iter().max().unwrap()),
        (ReduceKind::Min, |v| *v.iter().min().unwrap()),
        (ReduceKind::Product, |v| v.iter().fold(1i64, |a, b| a.wrapping_mul(*b))),
        (ReduceKind::SumSquares, |v| v.iter().map(|x| x * x).sum()),
        (ReduceKind::SumAbs, |v| v.iter().map(|x| x.abs()).sum()),
    ];
    for (kind, naive) in kinds {
        // Axes 0 and 2 are joined.
        let want: Vec<i64> = (0..dims[1] * dims[3])
            .map(|i| {
                let (b, d) = (i / dims[3], i % dims[3]);
                let row: Vec<i64> = (0..dims[0] * dims[2])
                    .map(|j| x[((j / dims[2] * dims[1] + b) * dims[2] + j % dims[2]) * dims[3] + d])
                    .collect();
                naive(&row)
            })
            .collect();
        let mut bench = Bench::default();
        let step = Contract {
            domain: Domain::I64,
            kind,
            outer: [1, 1, 1, 1, 5, 7],
            inner: [1, 1, 3, 4],
            left: Side {
                at: bench.arena_bytes(&encoded(DType::I64, &x)),
                dtype: DType::I64,
                outer: [0, 0, 0, 0, 28, 1],
                inner: [0, 0, 140, 7],
            },
            dtype: DType::I64,
            out: bench.room(35 * 8),
            ..Contract::default()
        };
        expect(bench.run(step, step.out, 35 * 8), &encoded(DType::I64, &want), &format!("{kind:?}"));
    }
    // Without a sign the upper half is larger.
    for (kind, want) in [(ReduceKind::Max, u64::MAX), (ReduceKind::Min, 1)] {
        let mut bench = Bench::default();
        let x: Vec<u8> = [1u64, u64::MAX, 5, 1 << 63].iter().flat_map(|v| v.to_le_bytes()).collect();
        let step = Contract {
            domain: Domain::I64,
            kind,
            outer: [1; 6],
            inner: [1, 1, 1, 4],
            left: Side { at: bench.arena_bytes(&x), dtype: DType::U64, outer: [0; 6], inner: [0, 0, 0, 1] },
            dtype: DType::U64,
            out: bench.room(8),
            ..Contract::default()
        };
        expect(bench.run(step, step.out, 8), &want.to_le_bytes(), "u64");
    }
}

#[test]
fn running_sums_forwards_and_backwards() {
    for [outer, len, inner] in [[1usize, 6, 1], [150, 4, 1], [2, 5, 3], [2, 3, 200]] {
        let x = whole(5, outer * len * inner);
        for (exclusive, reverse) in [(0u32, 0u32), (0, 1), (1, 0), (1, 1)] {
            let mut want = vec![0; x.len()];
            for o in 0..outer {
                for i in 0..inner {
                    for l in 0..len {
                        let range = match (reverse, exclusive) {
                            (0, 0) => 0..l + 1,
                            (0, _) => 0..l,
                            (_, 0) => l..len,
                            _ => l + 1..len,
                        };
                        want[(o * len + l) * inner + i] = range.map(|l| x[(o * len + l) * inner + i]).sum();
                    }
                }
            }
            for (domain, dtype) in DOMAINS {
                let mut bench = Bench::default();
                let at = bench.arena_bytes(&encoded(dtype, &x));
                let [outer, len, inner] = [outer, len, inner].map(|v| v as u32);
                let step = Scan { domain, dtype, outer, len, inner, exclusive, reverse, input: at, out: at };
                let want = encoded(dtype, &want);
                expect(bench.run(step, at, want.len()), &want, &format!("{outer} {len} {inner} {exclusive} {reverse}"));
            }
        }
    }
}

#[test]
fn what_comes_first_is_found_in_order() {
    let [outer, len, inner] = [2usize, 37, 3];
    let mut x: Vec<f32> = floats(9, outer * len * inner).iter().map(|v| (v * 6.0).round()).collect();
    (x[4], x[50], x[60], x[61]) = (f32::NAN, f32::NEG_INFINITY, f32::INFINITY, -0.0);
    for (k, largest) in [(1usize, 0u32), (1, 1), (2, 1), (5, 0), (37, 0), (37, 1)] {
        let (mut values, mut indices) = (vec![0f32; outer * k * inner], vec![0i64; outer * k * inner]);
        for o in 0..outer {
            for i in 0..inner {
                let at = |l: usize| x[(o * len + l) * inner + i];
                let mut order: Vec<usize> = (0..len).collect();
                order.sort_by(|&a, &b| {
                    let up = at(a).partial_cmp(&at(b)).unwrap_or(at(a).is_nan().cmp(&at(b).is_nan()));
                    if largest == 1 { up.reverse() } else { up }
                });
                for (to, &l) in order.iter().take(k).enumerate() {
                    values[(o * k + to) * inner + i] = at(l);
                    indices[(o * k + to) * inner + i] = l as i64;
                }
            }
        }
        let mut bench = Bench::default();
        let mut step = Top {
            dtype: DType::F32,
            outer: outer as u32,
            len: len as u32,
            inner: inner as u32,
            k: k as u32,
            largest,
            input: bench.arena(&x),
            indices: bench.room(indices.len() as u64 * 8),
            ..Top::default()
        };
        let place = bench.room(values.len() as u64 * 4);
        step.values = List::new(&[place]).unwrap();
        step.scratch = bench.room(step.scratch_bytes());
        expect(bench.clone().run(step, step.indices, indices.len() * 8), &encoded(DType::I64, &indices), "indices");
        expect(bench.run(step, place, values.len() * 4), &bytes(&values), "values");
    }
    // Of equal ones the last, and NaN before all, in either direction.
    for (row, largest, last, want) in [
        ([1.0, 3.0, 3.0, 2.0], 1, 1, 2i64),
        ([1.0, 3.0, 3.0, 2.0], 1, 0, 1),
        ([1.0, f32::NAN, 0.0, 2.0], 0, 0, 1),
        ([1.0, f32::NAN, 0.0, 2.0], 1, 0, 1),
    ] {
        let mut bench = Bench::default();
        let step = Top {
            dtype: DType::F32,
            outer: 1,
            len: 4,
            inner: 1,
            k: 1,
            largest,
            last,
            nan_first: 1,
            input: bench.arena(&row),
            indices: bench.room(8),
            ..Top::default()
        };
        expect(bench.run(step, step.indices, 8), &want.to_le_bytes(), &format!("{row:?}"));
    }
    // Integers of both kinds at their ends.
    let ends: Vec<u8> = [5i64, -1, i64::MIN, i64::MAX].iter().flat_map(|v| v.to_le_bytes()).collect();
    for (dtype, order) in [(DType::I64, [2i64, 1, 0, 3]), (DType::U64, [0, 3, 2, 1])] {
        let mut bench = Bench::default();
        let mut step = Top {
            dtype,
            outer: 1,
            len: 4,
            inner: 1,
            k: 4,
            input: bench.arena_bytes(&ends),
            indices: bench.room(32),
            ..Top::default()
        };
        step.scratch = bench.room(step.scratch_bytes());
        expect(bench.run(step, step.indices, 32), &encoded(DType::I64, &order), &format!("{dtype:?}"));
    }
}

/// The second entry of the heap is overwritten by the first result; what it then says is a number of the input.
#[test]
fn a_heap_under_the_results_leads_nowhere_outside() {
    let numbers = [1i64 << 20, 1 << 21];
    let mut bench = Bench::default();
    let mut step = Top {
        dtype: DType::I64,
        outer: 1,
        len: 2,
        inner: 1,
        k: 2,
        input: bench.arena_bytes(&encoded(DType::I64, &numbers)),
        indices: bench.room(16),
        scratch: bench.room(64),
        ..Top::default()
    };
    let values = At::arena(step.scratch.offset() + 24).unwrap();
    step.values = List::new(&[values]).unwrap();
    expect(bench.run(step, values, 16), &encoded(DType::I64, &numbers), "both are the input's");
}

/// Tuples of two numbers into planes of 3 × 4 slices of 2, for two batches of planes.
fn address(bench: &mut Bench, dtype: DType) -> (Address, Vec<usize>) {
    let numbers: Vec<i64> = vec![0, 0, 2, 3, -1, -4, 99, 1, 1, 1, 1, 1, i64::MIN, i64::MAX, 0, 2];
    let held = |i: i64, n: i64| (if i < 0 { i.saturating_add(n) } else { i }).clamp(0, n - 1);
    let places = numbers
        .chunks(2)
        .enumerate()
        .map(|(t, pair)| {
            let cut = |i: i64| if dtype == DType::I32 { i64::from(i as i32) } else { i };
            t / 4 * 24 + (held(cut(pair[0]), 3) * 8 + held(cut(pair[1]), 4) * 2) as usize
        })
        .collect();
    let components = [Component { extent: 3, stride: 8 }, Component { extent: 4, stride: 2 }];
    let address = Address {
        dims: [1, 1, 1, 1, 2, 4],
        base: [0, 0, 0, 0, 24, 0],
        components: List::new(&components).unwrap(),
        slice: 2,
        dtype,
        indices: bench.arena_bytes(&encoded(dtype, &numbers)),
    };
    (address, places)
}

#[test]
fn tuples_of_indices_pick_and_put() {
    for indices in [DType::I32, DType::I64] {
        // No zeros: floats have two.
        let whole = |seed, n| whole(seed, n).into_iter().map(|v| if v == 0 { 4 } else { v }).collect::<Vec<i64>>();
        let x = whole(7, 48);
        for dtype in [DType::U8, DType::I32, DType::I64] {
            let mut bench = Bench::default();
            let (address, places) = address(&mut bench, indices);
            let step = Pick {
                address,
                size: dtype.size() as u32,
                input: bench.arena_bytes(&encoded(dtype, &x)),
                out: bench.room(16 * 8),
            };
            let want: Vec<i64> = places.iter().flat_map(|&p| [x[p], x[p + 1]]).collect();
            expect(bench.run(step, step.out, 16 * dtype.size()), &encoded(dtype, &want), &format!("{dtype:?}"));
        }
        let updates = whole(8, 16);
        type Naive = fn(i64, i64) -> i64;
        let ways: [(Combine, Naive); 5] = [
            (Combine::Set, |_, new| new),
            (Combine::Add, |old, new| old + new),
            (Combine::Mul, |old, new| old * new),
            (Combine::Min, i64::min),
            (Combine::Max, i64::max),
        ];
        for (combine, naive) in ways {
            for (domain, dtype) in DOMAINS {
                let mut bench = Bench::default();
                let (address, places) = address(&mut bench, indices);
                let mut want = x.clone();
                for (t, &p) in places.iter().enumerate() {
                    for i in 0..2 {
                        want[p + i] = naive(want[p + i], updates[t * 2 + i]);
                    }
                }
                let step = Put {
                    address,
                    combine,
                    domain,
                    dtype,
                    updates: bench.arena_bytes(&encoded(dtype, &updates)),
                    out: bench.arena_bytes(&encoded(dtype, &x)),
                };
                let want = encoded(dtype, &want);
                expect(bench.run(step, step.out, want.len()), &want, &format!("{combine:?} {dtype:?}"));
            }
        }
    }
}

#[test]
fn a_tuple_without_numbers_points_to_the_whole() {
    let mut bench = Bench::default();
    let x = whole(4, 6);
    let address = Address { dims: [1, 1, 1, 1, 1, 3], slice: 6, dtype: DType::I64, ..Address::default() };
    let step = Pick { address, size: 8, input: bench.arena_bytes(&encoded(DType::I64, &x)), out: bench.room(144) };
    let want: Vec<i64> = [&x[..], &x, &x].concat();
    expect(bench.run(step, step.out, 144), &encoded(DType::I64, &want), "the whole");
    assert_eq!(address.indices, At::default());
}
