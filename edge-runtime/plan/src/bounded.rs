//! Steps whose results have as many rows as the data says. Room is for as many as there can be; how many there are is written
//! beside them, and rows behind those are zeros.

use crate::check::{Access, Bounds, Checked, sound, times};
use crate::record::record;
use crate::step::{At, DType};

record! {
    /// Where elements are not zero: `[..dims] → [rank][elements]`, I64, in row-major order.
    pub struct NonZero {
        /// Of the elements. NaN is not zero.
        dtype: DType,
        /// How many of the dimensions count, 1 to 8.
        rank: u32,
        /// Extents, at least 1.
        dims: [u32; 8],
        /// The elements.
        input: At,
        /// Row `d` has the indices of dimension `d`.
        out: At,
        /// How many columns are valid: one I64.
        count: At,
    }
}

record! {
    /// Boxes that overlap no better one, of each class of each image: `[batch · classes · limit][3]`, I64: image, class, box.
    pub struct Suppress {
        /// Images.
        batch: u32,
        /// Classes.
        classes: u32,
        /// Boxes of an image.
        boxes: u32,
        /// Most boxes of one class of one image.
        limit: u32,
        /// 1: a box is its centre, width and height; else two opposite corners.
        centered: u32,
        /// 1: only scores above `score` count.
        scored: u32,
        /// Intersection over union above which the worse of two boxes goes.
        iou: f32,
        /// See `scored`.
        score: f32,
        /// `[batch][boxes][4]`, f32.
        corners: At,
        /// `[batch][classes][boxes]`, f32.
        scores: At,
        /// The result.
        out: At,
        /// How many rows are valid: one I64.
        count: At,
        /// A word for each box.
        scratch: At,
    }
}

record! {
    /// Rows that differ, of `[rows][len]`.
    pub struct Unique {
        /// Of the elements. NaN equals NaN and is the largest.
        dtype: DType,
        /// How many rows.
        rows: u32,
        /// Elements of one.
        len: u32,
        /// 1: in ascending order; else in that of their first occurrence.
        sorted: u32,
        /// The rows.
        input: At,
        /// `[rows][len]`: those that differ.
        values: At,
        /// `[rows]`, I64: where each occurs first.
        first: At,
        /// `[rows]`, I64: for each row, which of those that differ it is.
        inverse: At,
        /// `[rows]`, I64: how often each occurs.
        counts: At,
        /// How many rows are valid: one I64.
        count: At,
        /// A word for each row.
        scratch: At,
    }
}

impl Bounds<'_> {
    pub(crate) fn non_zero(&self, s: &NonZero) -> Checked {
        let dims = s.dims.get(..s.rank as usize).unwrap_or_default();
        sound(!dims.is_empty() && s.dims.iter().all(|&d| d >= 1))?;
        let elements = dims.iter().fold(1u64, |n, &d| n.saturating_mul(u64::from(d)));
        self.span(s.input, elements, s.dtype.size() as u32, Access::Read)?;
        self.span(s.out, times(&[elements, u64::from(s.rank)]), 8, Access::Write)?;
        self.span(s.count, 1, 8, Access::Write)
    }

    pub(crate) fn suppress(&self, s: &Suppress) -> Checked {
        let [batch, classes, boxes, limit] = [s.batch, s.classes, s.boxes, s.limit].map(u64::from);
        sound([batch, classes, boxes, limit].iter().all(|&n| n >= 1) && s.centered <= 1 && s.scored <= 1)?;
        sound(limit <= boxes)?;
        self.span(s.corners, times(&[batch, boxes, 4]), 4, Access::Read)?;
        self.span(s.scores, times(&[batch, classes, boxes]), 4, Access::Read)?;
        self.span(s.out, times(&[batch, classes, limit, 3]), 8, Access::Write)?;
        self.span(s.count, 1, 8, Access::Write)?;
        self.span(s.scratch, boxes, 4, Access::Write)
    }

    pub(crate) fn unique(&self, s: &Unique) -> Checked {
        let [rows, len] = [s.rows, s.len].map(u64::from);
        sound(rows >= 1 && len >= 1 && s.sorted <= 1)?;
        let size = s.dtype.size() as u32;
        self.span(s.input, times(&[rows, len]), size, Access::Read)?;
        self.span(s.values, times(&[rows, len]), size, Access::Write)?;
        for at in [s.first, s.inverse, s.counts] {
            self.span(at, rows, 8, Access::Write)?;
        }
        self.span(s.count, 1, 8, Access::Write)?;
        self.span(s.scratch, rows, 4, Access::Write)
    }
}
