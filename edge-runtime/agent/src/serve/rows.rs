//! A request with several rows: each is run alone, one after the other, and all of them by one release.

use std::sync::Arc;
use std::time::Duration;

use ballast_bundle::{Batch, batch};
use ballast_sandbox::Answer;
use bytes::Bytes;

use super::infer::{Answered, Context, NoAnswer};
use super::{AnsweredBy, Route};
use crate::loaded::Question;

impl Context {
    /// Answers a question of `rows` rows that fits the contract of `route`'s primary, or lets the cloud answer it; outputs have
    /// all of them.
    pub(crate) async fn infer_rows(
        self,
        route: Route,
        by: AnsweredBy,
        question: Question,
        rows: u64,
    ) -> Result<Answered, NoAnswer> {
        let (cloud, expires) = (Arc::clone(&self.cloud), self.expires);
        let inputs = question.inputs.clone();
        let answered = self.at_the_edge(route, by, question, rows).await?;
        Ok(cloud.finish(answered, &inputs, rows, expires).await)
    }

    async fn at_the_edge(
        self,
        route: Route,
        by: AnsweredBy,
        question: Question,
        rows: u64,
    ) -> Result<Answered, NoAnswer> {
        let contract = &route.primary.contract;
        let rows = usize::try_from(rows).unwrap_or(1);
        let Some(axes) = contract.batch.clone().filter(|_| rows > 1) else {
            return self.infer(route, by, question).await;
        };
        let entry = question.entry;
        let part = |n| Question { entry, inputs: row(&route, &axes, &question.inputs, rows, n) };
        let parts: Vec<Question> = (0..rows).map(part).collect();
        drop(question);
        // A release that fails on a row is answered for by another one, and so are then the rows before: one answer, one release.
        let (mut route, mut by) = (route, by);
        for _ in 0..2 {
            match self.each(&route, by, &parts).await? {
                Rows::All(outputs, compute, by) => {
                    let specs = route.primary.contract.outputs.iter().zip(&axes.outputs).enumerate();
                    let joined = specs.map(|(i, (spec, axis))| {
                        let all: Vec<&[u8]> =
                            outputs.iter().map(|row| row.get(i).map(Vec::as_slice).unwrap_or_default()).collect();
                        batch::join(spec, *axis as usize, &all)
                    });
                    let answer = Answer { outputs: joined.collect(), compute };
                    return Ok(Answered { answer, loaded: route.primary, by, told: None, said: None });
                }
                Rows::Other(next, who) => (route, by) = (next, who),
            }
        }
        Err(NoAnswer::Gone("the model was replaced again and again while the rows were run; ask again"))
    }

    async fn each(&self, route: &Route, by: AnsweredBy, parts: &[Question]) -> Result<Rows, NoAnswer> {
        let (mut outputs, mut compute) = (Vec::with_capacity(parts.len()), Duration::ZERO);
        for part in parts {
            let answered = self.clone().infer(route.clone(), by, part.clone()).await?;
            if !Arc::ptr_eq(&answered.loaded, &route.primary) {
                let route = Route { primary: answered.loaded, on_trial: false, backup: None };
                return Ok(Rows::Other(route, answered.by));
            }
            compute = compute.saturating_add(answered.answer.compute);
            outputs.push(answered.answer.outputs);
        }
        Ok(Rows::All(outputs, compute, by))
    }
}

/// What came of running rows one after the other.
enum Rows {
    /// Outputs by row.
    All(Vec<Vec<Vec<u8>>>, Duration, AnsweredBy),
    /// Another release answered one of them.
    Other(Route, AnsweredBy),
}

/// The inputs of row `n`.
fn row(route: &Route, axes: &Batch, inputs: &[Bytes], rows: usize, n: usize) -> Vec<Bytes> {
    let specs = route.primary.contract.inputs.iter().zip(inputs).zip(&axes.inputs);
    specs
        .map(|((spec, bytes), axis)| match axis {
            None => bytes.clone(),
            Some(axis) => Bytes::from(batch::part(spec, *axis as usize, bytes, rows, n)),
        })
        .collect()
}
