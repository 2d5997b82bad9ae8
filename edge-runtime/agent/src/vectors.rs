//! A release's golden vectors: those of all its shapes, counted through.

use ballast_bundle::Contract;
use ballast_bundle::golden::{Golden, GoldenError, Tally, VectorResult};
use ballast_sandbox::Answer;
use bytes::Bytes;

use crate::loaded::Question;

/// The golden layer of a bundle.
pub(crate) struct Vectors {
    /// By entry of the plan: what its vectors are judged by, and they.
    entries: Vec<(Contract, Golden)>,
}

impl Vectors {
    pub(crate) fn read(bytes: &[u8], contract: &Contract) -> Result<Self, GoldenError> {
        let entries = Golden::of_entries(bytes, contract)?;
        Ok(Self {
            entries: entries.into_iter().enumerate().map(|(n, golden)| (contract.of_entry(n), golden)).collect(),
        })
    }

    /// How many there are of all shapes together.
    pub(crate) fn len(&self) -> usize {
        self.entries.iter().map(|(_, golden)| golden.len()).sum()
    }

    /// The entry that a vector belongs to, and its number there.
    fn place(&self, mut vector: usize) -> Option<(usize, usize, &Contract, &Golden)> {
        for (n, (contract, golden)) in self.entries.iter().enumerate() {
            match vector.checked_sub(golden.len()) {
                None => return Some((n, vector, contract, golden)),
                Some(rest) => vector = rest,
            }
        }
        None
    }

    /// What one vector asks. Nothing of entry 0 where there is no such vector, which no release answers.
    pub(crate) fn question(&self, vector: usize) -> Question {
        let Some((entry, vector, contract, golden)) = self.place(vector) else {
            return Question { entry: 0, inputs: Vec::new() };
        };
        let input = |name: &str| golden.input(vector, name).map(Bytes::copy_from_slice).unwrap_or_default();
        Question { entry, inputs: contract.inputs.iter().map(|t| input(&t.name)).collect() }
    }

    /// What is wrong with the answer to one vector, if anything.
    pub(crate) fn check(&self, vector: usize, answer: &Answer) -> VectorResult {
        let Some((_, vector, contract, golden)) = self.place(vector) else { return VectorResult::default() };
        let outputs: Vec<_> = contract.outputs.iter().zip(answer.outputs.iter().map(Vec::as_slice)).collect();
        golden.check(vector, &outputs, contract)
    }

    /// Judges results of all vectors, in their order: every shape for itself.
    pub(crate) fn judge(&self, results: Vec<VectorResult>) -> Result<(), String> {
        let mut results = results.into_iter();
        for (n, (contract, golden)) in self.entries.iter().enumerate() {
            let mut tally = Tally::default();
            results.by_ref().take(golden.len()).for_each(|result| tally.add(result));
            tally.judge(contract).map_err(|message| match self.entries.len() {
                1 => message,
                _ => format!("of shape {}: {message}", n.saturating_add(1)),
            })?;
        }
        Ok(())
    }
}
