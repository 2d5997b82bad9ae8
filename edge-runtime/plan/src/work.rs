//! How much work steps are. Extents whose strides are 0 need no memory, so that memory alone does not bound what a step does.

use crate::check::{Programs, times};
use crate::control::{Item, Items};
use crate::generic::Address;
use crate::step::{Elt, Epilogue, Step, Wide, Window};

/// Most work of one run of an entry: rather more than the largest networks that fit into 4 GiB ask for. A core that does 2·10¹⁰
/// multiplications a second is busy with it for a quarter of an hour; deadlines, which whoever runs a plan sets, are shorter.
pub const MAX_WORK: u64 = 1 << 44;

/// Comparisons by which one element finds its place among 2³¹.
const SORTING: u64 = 32;

fn of(factors: &[u32]) -> u64 {
    factors.iter().fold(1, |all, &n| all.saturating_mul(u64::from(n)))
}

/// Numbers of indices, and what they point to.
fn tuples(address: &Address) -> u64 {
    address.tuples().saturating_mul(u64::from(address.slice).saturating_add(8))
}

/// Multiplications of `outputs` planes, and elements of the `inputs` planes that are read or padded for them.
fn windows(window: &Window, outputs: u64, depth: u64, inputs: u64) -> u64 {
    let planes = window.plane_floats().saturating_add(of(&[window.ih, window.iw]));
    times(&[outputs, window.pixels(), window.taps(), depth]).saturating_add(times(&[inputs, planes]))
}

impl Step {
    /// About how many elements it moves or operations it does: right to a small factor, never 0, and `u64::MAX` where it would
    /// be more.
    pub fn work(&self, programs: &dyn Programs) -> u64 {
        let elt = |e: &Elt| times(&[of(&e.dims), programs.length(e.program).saturating_add(1)]);
        let tail = |e: &Epilogue| 1 + e.program.checked_sub(1).map_or(0, |program| programs.length(program));
        let work = match self {
            Self::Fill(s) => s.words.into(),
            Self::Copy(s) => of(&s.dims),
            Self::Elt(e) | Self::Wide(Wide { elt: e, .. }) => elt(e),
            Self::Gemm(s) => {
                let [batch, m, n, k] = [s.batch, s.m, s.n, s.k].map(u64::from);
                // Panels are filled up.
                let (rows, cols) = (m.next_multiple_of(4), n.next_multiple_of(16));
                times(&[batch, rows, cols, k.saturating_add(tail(&s.epilogue))])
            }
            Self::Conv(s) => {
                let out = times(&[of(&[s.batch, s.groups]), u64::from(s.oc).next_multiple_of(4)]);
                windows(&s.window, out, u64::from(s.ic), of(&[s.batch, s.groups, s.ic])).saturating_add(times(&[
                    out,
                    s.window.pixels(),
                    tail(&s.epilogue),
                ]))
            }
            Self::Depthwise(s) => {
                let planes = of(&[s.batch, s.planes]);
                windows(&s.window, planes, 1, planes).saturating_add(times(&[
                    planes,
                    s.window.pixels(),
                    tail(&s.epilogue),
                ]))
            }
            Self::Pool(s) => windows(&s.window, s.planes.into(), 1, s.planes.into()),
            Self::Reduce(s) => of(&[s.outer, s.len, s.inner]),
            Self::Softmax(s) => of(&[s.outer, s.len, s.inner, 4]),
            Self::Gather(s) => of(&[s.outer, s.count, s.bytes]),
            Self::Contract(s) => times(&[of(&s.outer), of(&s.inner)]),
            Self::Scan(s) => of(&[s.outer, s.len, s.inner]),
            Self::Top(s) => times(&[of(&[s.outer, s.len, s.inner]), SORTING]),
            Self::Pick(s) => tuples(&s.address),
            Self::Put(s) => tuples(&s.address),
            Self::IntGemm(s) => {
                let [batch, m, n, k] = [s.batch, s.m, s.n, s.k].map(u64::from);
                times(&[batch, m.next_multiple_of(4), n.next_multiple_of(16), k.saturating_add(1)])
            }
            Self::IntConv(s) => {
                let out = times(&[of(&[s.batch, s.groups]), u64::from(s.oc).next_multiple_of(4)]);
                windows(&s.window, out, u64::from(s.ic), of(&[s.batch, s.groups, s.ic]))
            }
            Self::IntDepthwise(s) => {
                let planes = of(&[s.batch, s.planes]);
                windows(&s.window, planes, 1, planes)
            }
            Self::Lookup(s) => s.count.into(),
            Self::NonZero(s) => times(&[of(&s.dims), 8]),
            // Each box is compared with every one that was kept, and finds its place in the order of scores.
            Self::Suppress(s) => {
                let each = u64::from(s.limit).saturating_add(SORTING);
                times(&[of(&[s.batch, s.classes, s.boxes]), each])
            }
            Self::Unique(s) => times(&[of(&[s.rows, s.len]), 2 * SORTING]),
        };
        work.saturating_add(1)
    }
}

/// Work of one run of a list, every round of a repeat counted and of a branch the dearer side. For lists of plans that were
/// read: it recurses as deep as they are nested.
pub fn work(items: Items<'_>, programs: &dyn Programs) -> u64 {
    let each = |item| match item {
        Item::Step(step) => step.work(programs),
        Item::Repeat(repeat) => {
            let slides = repeat.before().chain(repeat.after()).map(|s| u64::from(s.bytes)).fold(1, u64::saturating_add);
            work(repeat.body(), programs).saturating_add(slides).saturating_mul(u64::from(repeat.count))
        }
        Item::Branch(branch) => work(branch.then(), programs).max(work(branch.otherwise(), programs)).saturating_add(1),
    };
    items.map(each).fold(0, u64::saturating_add)
}
