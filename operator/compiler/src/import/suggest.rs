//! Shapes for what a model leaves open: numbers to begin with, from names, ranks and habits. Whether they work is seen by
//! importing the model with them.

use std::collections::BTreeMap;

use crate::InputOverride;
use crate::onnx::Dimension;

use super::OpenInput;

/// Sides of images by turns: classifiers, detectors, small ones.
const SIDES: [u64; 8] = [224, 640, 320, 256, 48, 64, 32, 128];
/// Lengths of anything else: tokens, frames, samples.
const LENGTHS: [u64; 8] = [128, 16, 64, 256, 512, 100, 16_000, 1];

/// Shapes for all that is open, the likeliest first.
pub fn suggestions(open: &[OpenInput]) -> impl Iterator<Item = Vec<InputOverride>> {
    (0..SIDES.len()).map(move |turn| {
        let mut named = BTreeMap::new();
        let mut overrides = Vec::with_capacity(open.len());
        for input in open {
            let shape = Some(shape(input, turn, &mut named));
            overrides.push(InputOverride { name: input.name.clone(), shape, value: None, ..InputOverride::default() });
        }
        overrides
    })
}

fn shape<'m>(input: &'m OpenInput, turn: usize, named: &mut BTreeMap<&'m str, u64>) -> Vec<u64> {
    let (side, length) = (SIDES[turn % SIDES.len()], LENGTHS[turn % LENGTHS.len()]);
    let Some(dims) = &input.dims else {
        // Not even the rank is known.
        return match turn % 4 {
            0 => vec![1, 3, side, side],
            1 => vec![1, length],
            2 => vec![1],
            _ => vec![1, length, length],
        };
    };
    let image = dims.len() == 4;
    // The state of a recurrent cell: layers, batch, width.
    let state = matches!(dims[..], [Dimension::Value(_), Dimension::Open(_), Dimension::Value(_)]);
    dims.iter()
        .enumerate()
        .map(|(axis, dim)| match dim {
            Dimension::Value(extent) => u64::try_from(*extent).unwrap_or(1),
            Dimension::Open(name) => {
                let guess = if axis == 0 || state || is_batch(name) {
                    1
                } else if image && axis == 1 {
                    3
                } else if image || is_side(name) {
                    side
                } else {
                    length
                };
                if name.is_empty() { guess } else { *named.entry(name.as_str()).or_insert(guess) }
            }
        })
        .collect()
}

fn is_batch(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.contains("batch") || name == "n" || name == "b"
}

fn is_side(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["height", "width", "h", "w"].contains(&name.as_str()) || name.contains("height") || name.contains("width")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(name: &str, dims: &[&str]) -> OpenInput {
        let dim = |d: &&str| d.parse().map_or_else(|_| Dimension::Open((*d).to_owned()), Dimension::Value);
        OpenInput { name: name.to_owned(), dims: Some(dims.iter().map(dim).collect()) }
    }

    fn first(inputs: &[OpenInput]) -> Vec<Vec<u64>> {
        suggestions(inputs).next().unwrap().into_iter().filter_map(|o| o.shape).collect()
    }

    #[test]
    fn images_tokens_and_names_get_numbers_of_their_kind() {
        assert_eq!(first(&[open("x", &["batch", "3", "height", "width"])]), [[1, 3, 224, 224]]);
        assert_eq!(first(&[open("x", &["", "", "", ""])]), [[1, 3, 224, 224]]);
        let tokens = [open("ids", &["batch_size", "sequence"]), open("mask", &["batch_size", "sequence"])];
        assert_eq!(first(&tokens), [[1, 128], [1, 128]]);
        assert_eq!(first(&[open("state", &["2", "", "128"])]), [[2, 1, 128]]);
    }

    #[test]
    fn one_name_is_one_number_at_every_turn() {
        let inputs = [open("a", &["1", "n_frames", "80"]), open("b", &["1", "1", "n_frames", "4"])];
        for given in suggestions(&inputs) {
            let shapes: Vec<_> = given.into_iter().filter_map(|o| o.shape).collect();
            assert_eq!(shapes[0][1], shapes[1][2]);
        }
    }
}
