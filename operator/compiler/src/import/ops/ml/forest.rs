//! Trees as the attributes of the three tree operators list them, brought into one form: every node asks `x ≤ threshold`.

use std::collections::BTreeMap;

use super::super::super::build::{Result, invalid, unsupported};
use super::super::super::call::{Call, extent};
use super::{integers, numbers, tensor_numbers};

/// Most nodes: an index and the side that is taken, twice it, must be exact in f32.
pub(super) const MAX_NODES: usize = 1 << 23;
/// Most levels; each is a handful of operations of the model.
pub(super) const MAX_LEVELS: usize = 512;

/// One node.
#[derive(Debug, Clone, Copy)]
pub(super) enum Node {
    /// Row of the weights.
    Leaf(usize),
    /// `x[feature] ≤ threshold ? yes : no`
    Split {
        feature: usize,
        threshold: f32,
        yes: usize,
        no: usize,
        /// Where NaN goes.
        nan_is_yes: bool,
    },
}

/// All trees of an ensemble.
#[derive(Debug, Default)]
pub(super) struct Forest {
    pub(super) nodes: Vec<Node>,
    pub(super) roots: Vec<usize>,
    /// By leaf: what it adds to which target.
    pub(super) leaves: Vec<Vec<(usize, f32)>>,
}

/// A question as the file has it.
struct Question<'a> {
    mode: &'a str,
    feature: usize,
    value: f64,
    yes: usize,
    no: usize,
    nan_is_yes: bool,
}

/// The largest f32 that is not above: for x of f32, `x ≤ value` is `x ≤ below(value)`.
fn below(value: f64) -> f32 {
    let near = value as f32;
    if f64::from(near) > value { near.next_down() } else { near }
}

impl Forest {
    fn leaf(&mut self) -> usize {
        self.leaves.push(Vec::new());
        self.leaves.len() - 1
    }

    /// Puts a question at place `at`.
    fn ask(&mut self, at: usize, q: &Question<'_>) -> Result<()> {
        let Question { feature, value, yes, no, nan_is_yes, .. } = *q;
        let exact = f64::from(value as f32) == value;
        let at_most = below(value);
        let split = |threshold, yes, no, nan_is_yes| Node::Split { feature, threshold, yes, no, nan_is_yes };
        // x < v: x ≤ the number before v.
        let less = if exact { at_most.next_down() } else { at_most };
        if value.is_nan() {
            return invalid("a threshold that is NaN");
        }
        if value == f64::NEG_INFINITY && !matches!(q.mode, "BRANCH_LEQ" | "BRANCH_GT") {
            return unsupported(format!("{} with −∞", q.mode));
        }
        self.nodes[at] = match q.mode {
            "BRANCH_LEQ" => split(at_most, yes, no, nan_is_yes),
            "BRANCH_LT" => split(less, yes, no, nan_is_yes),
            // The sides change, and NaN stays on its own.
            "BRANCH_GT" => split(at_most, no, yes, !nan_is_yes),
            "BRANCH_GTE" => split(less, no, yes, !nan_is_yes),
            // x ≤ v, and then not x < v. Nothing of f32 equals what f32 does not hold.
            "BRANCH_EQ" | "BRANCH_NEQ" => {
                let equal = q.mode == "BRANCH_EQ";
                let (same, other) = if equal { (yes, no) } else { (no, yes) };
                // NaN differs from everything.
                let nan_is_same = equal && nan_is_yes;
                let second = if exact {
                    split(at_most.next_down(), other, same, false)
                } else {
                    split(at_most, other, other, false)
                };
                self.nodes.push(second);
                let second = self.nodes.len() - 1;
                split(at_most, second, other, nan_is_same)
            }
            other => return unsupported(format!("nodes of mode {other:?}")),
        };
        Ok(())
    }

    /// Levels of the deepest tree; an error where there is a circle.
    pub(super) fn levels(&self) -> Result<usize> {
        // 0: not seen, 1: being looked at, 2: done.
        let mut state = vec![0u8; self.nodes.len()];
        let mut height = vec![0usize; self.nodes.len()];
        for root in &self.roots {
            let mut stack = vec![*root];
            while let Some(&at) = stack.last() {
                let Node::Split { yes, no, .. } = self.nodes[at] else {
                    state[at] = 2;
                    stack.pop();
                    continue;
                };
                if state[at] == 2 {
                    stack.pop();
                    continue;
                }
                if state[at] == 1 {
                    (state[at], height[at]) = (2, height[yes].max(height[no]) + 1);
                    stack.pop();
                    continue;
                }
                state[at] = 1;
                for child in [yes, no] {
                    match state[child] {
                        0 => stack.push(child),
                        1 => return invalid("a tree that leads back into itself"),
                        _ => {}
                    }
                }
            }
        }
        let levels = self.roots.iter().map(|r| height[*r]).max().unwrap_or(0);
        if levels > MAX_LEVELS {
            unsupported(format!("{levels} levels of a tree; at most {MAX_LEVELS}"))
        } else {
            Ok(levels)
        }
    }

    pub(super) fn features(&self) -> usize {
        let feature = |n: &Node| match n {
            Node::Split { feature, .. } => Some(feature + 1),
            Node::Leaf(_) => None,
        };
        self.nodes.iter().filter_map(feature).max().unwrap_or(0)
    }

    /// As `TreeEnsembleRegressor` and `TreeEnsembleClassifier` list it; `what` is `target` or `class`.
    pub(super) fn listed(call: &Call<'_, '_>, what: &str, targets: usize) -> Result<Self> {
        let (trees, ids) = (integers(call, "nodes_treeids"), integers(call, "nodes_nodeids"));
        let (features, yes, no) = (
            integers(call, "nodes_featureids"),
            integers(call, "nodes_truenodeids"),
            integers(call, "nodes_falsenodeids"),
        );
        let modes = call.texts("nodes_modes").unwrap_or_default();
        let values = numbers(call, "nodes_values")?;
        let nan = integers(call, "nodes_missing_value_tracks_true");
        let count = trees.len();
        if count == 0 || count > MAX_NODES {
            return unsupported(format!("{count} nodes; from 1 to {MAX_NODES}"));
        }
        if [ids.len(), features.len(), yes.len(), no.len(), modes.len(), values.len()] != [count; 6]
            || !nan.is_empty() && nan.len() != count
        {
            return invalid("its lists of nodes differ in length");
        }
        let mut places = BTreeMap::new();
        for (i, key) in trees.iter().zip(ids).enumerate() {
            if places.insert(key, i).is_some() {
                return invalid(format!("tree {} has two nodes {}", key.0, key.1));
            }
        }
        let place = |tree: &i64, node: &i64| match places.get(&(tree, node)) {
            Some(place) => Ok(*place),
            None => invalid(format!("tree {tree} has no node {node}")),
        };
        let mut forest = Self { nodes: vec![Node::Leaf(0); count], ..Self::default() };
        let mut is_child = vec![false; count];
        for i in 0..count {
            let mode = String::from_utf8_lossy(modes[i]);
            if mode == "LEAF" {
                let leaf = forest.leaf();
                forest.nodes[i] = Node::Leaf(leaf);
                continue;
            }
            let (yes, no) = (place(&trees[i], &yes[i])?, place(&trees[i], &no[i])?);
            // Trees: walking them all is as much work as they have nodes.
            for child in [yes, no] {
                if std::mem::replace(&mut is_child[child], true) {
                    return invalid(format!("node {} of tree {} is reached twice", ids[child], trees[child]));
                }
            }
            let nan_is_yes = nan.get(i).is_some_and(|n| *n != 0);
            let question =
                Question { mode: &mode, feature: extent(features[i])?, value: values[i], yes, no, nan_is_yes };
            forest.ask(i, &question)?;
        }
        forest.roots = (0..count).filter(|i| !is_child[*i]).collect();
        let mut starts: Vec<_> = forest.roots.iter().map(|r| trees[*r]).collect();
        starts.sort_unstable();
        let mut all = trees.to_vec();
        all.sort_unstable();
        all.dedup();
        if starts != all {
            return invalid("a tree does not have one root");
        }
        let (leaf_trees, leaf_nodes) =
            (integers(call, &format!("{what}_treeids")), integers(call, &format!("{what}_nodeids")));
        let leaf_targets = integers(call, &format!("{what}_ids"));
        let weights = numbers(call, &format!("{what}_weights"))?;
        if [leaf_nodes.len(), leaf_targets.len(), weights.len()] != [leaf_trees.len(); 3] {
            return invalid("its lists of weights differ in length");
        }
        for (((tree, node), target), weight) in leaf_trees.iter().zip(leaf_nodes).zip(leaf_targets).zip(weights) {
            let target = usize::try_from(*target).ok().filter(|t| *t < targets);
            let Some(target) = target else { return invalid("a weight for a target that is not there") };
            // Weights of inner nodes are never reached.
            if let Node::Leaf(leaf) = forest.nodes[place(tree, node)?] {
                forest.leaves[leaf].push((target, weight as f32));
            }
        }
        Ok(forest)
    }

    /// As `TreeEnsemble` of operator set 5 lists it.
    pub(super) fn compact(call: &Call<'_, '_>, targets: usize) -> Result<Self> {
        let splits = tensor_numbers(call, "nodes_splits")?.unwrap_or_default();
        let modes = tensor_numbers(call, "nodes_modes")?.unwrap_or_default();
        let (features, yes, no) = (
            integers(call, "nodes_featureids"),
            integers(call, "nodes_truenodeids"),
            integers(call, "nodes_falsenodeids"),
        );
        let (yes_leafs, no_leafs) = (integers(call, "nodes_trueleafs"), integers(call, "nodes_falseleafs"));
        let nan = integers(call, "nodes_missing_value_tracks_true");
        let (leaf_targets, weights) =
            (integers(call, "leaf_targetids"), tensor_numbers(call, "leaf_weights")?.unwrap_or_default());
        let (count, leaves) = (splits.len(), leaf_targets.len());
        if count == 0 || leaves == 0 || count + leaves > MAX_NODES {
            return unsupported(format!("{count} nodes and {leaves} leaves; at most {MAX_NODES} together"));
        }
        if [modes.len(), features.len(), yes.len(), no.len(), yes_leafs.len(), no_leafs.len()] != [count; 6]
            || weights.len() != leaves
            || !nan.is_empty() && nan.len() != count
        {
            return invalid("its lists of nodes or leaves differ in length");
        }
        let mut forest = Self { nodes: vec![Node::Leaf(0); count], ..Self::default() };
        for (target, weight) in leaf_targets.iter().zip(weights) {
            let target = usize::try_from(*target).ok().filter(|t| *t < targets);
            let Some(target) = target else { return invalid("a weight for a target that is not there") };
            let leaf = forest.leaf();
            forest.leaves[leaf].push((target, weight as f32));
            forest.nodes.push(Node::Leaf(leaf));
        }
        let place = |index: i64, is_leaf: i64| {
            let limit = if is_leaf != 0 { leaves } else { count };
            match usize::try_from(index) {
                Ok(i) if i < limit => Ok(if is_leaf != 0 { count + i } else { i }),
                _ => invalid(format!("a node {index} that is not there")),
            }
        };
        // Trees: walking them all is as much work as they have nodes. Leaves may be shared.
        let mut reached = vec![false; count];
        let mut once = |place: usize| match reached.get_mut(place).map(|r| std::mem::replace(r, true)) {
            Some(true) => invalid(format!("node {place} is reached twice")),
            Some(false) | None => Ok(place),
        };
        let members = tensor_numbers(call, "membership_values")?.unwrap_or_default();
        let mut members = members.split(|m| m.is_nan());
        for i in 0..count {
            let sides = [place(yes[i], yes_leafs[i])?, place(no[i], no_leafs[i])?];
            // A tree that is one leaf is written as a node both of whose sides are that leaf.
            let (yes, no) = (once(sides[0])?, once(sides[1])?);
            let feature = extent(features[i])?;
            let nan_is_yes = nan.get(i).is_some_and(|n| *n != 0);
            let names = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"];
            match modes[i] as i64 {
                6 => {
                    let Some(set) = members.next() else { return invalid("a membership without values") };
                    forest.member(i, set, feature, [yes, no], nan_is_yes)?;
                }
                mode => {
                    let name = usize::try_from(mode).ok().and_then(|m| names.get(m));
                    let Some(mode) = name else { return unsupported(format!("nodes of mode {mode}")) };
                    forest.ask(i, &Question { mode, feature, value: splits[i], yes, no, nan_is_yes })?;
                }
            }
            if forest.nodes.len() > MAX_NODES {
                return unsupported(format!("more than {MAX_NODES} nodes"));
            }
        }
        let roots = integers(call, "tree_roots");
        forest.roots = roots.iter().map(|r| once(place(*r, 0)?)).collect::<Result<_>>()?;
        if forest.roots.is_empty() {
            return invalid("it has no roots");
        }
        Ok(forest)
    }

    /// Whether a feature is one of a set: one question after the other.
    fn member(
        &mut self,
        at: usize,
        set: &[f64],
        feature: usize,
        [yes, no]: [usize; 2],
        nan_is_yes: bool,
    ) -> Result<()> {
        let mut at = at;
        for (i, value) in set.iter().enumerate() {
            let last = i + 1 == set.len();
            let next = if last {
                no
            } else {
                self.nodes.push(Node::Leaf(0));
                self.nodes.len() - 1
            };
            let nan_is_yes = nan_is_yes && i == 0;
            self.ask(at, &Question { mode: "BRANCH_EQ", feature, value: *value, yes, no: next, nan_is_yes })?;
            at = next;
        }
        if set.is_empty() { invalid("a membership without values") } else { Ok(()) }
    }
}
