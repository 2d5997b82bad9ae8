//! Where in a file a field stands, for whoever must mend it. Read only once something is wrong.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// Lines of one document, from 1, by path: `spec.rollout.steps[0].gateways`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lines(BTreeMap<String, u64>);

impl Lines {
    /// Of each document of a text that is not empty; nothing when it cannot be read.
    pub fn of(text: &str) -> Vec<Self> {
        let documents: Vec<Node> = serde_saphyr::from_multiple(text).unwrap_or_default();
        let filled = documents.into_iter().filter(|document| !matches!(document, Node::Null));
        filled
            .map(|document| {
                let mut lines = Self::default();
                lines.add("", &document);
                lines
            })
            .collect()
    }

    /// The line of the first of these fields that is there: a field that is missing is often another's wrong name. Else of
    /// what is around the first one.
    pub fn first(&self, paths: &[String]) -> Option<u64> {
        paths.iter().find_map(|path| self.0.get(path).copied()).or_else(|| self.find(paths.first()?))
    }

    fn find(&self, path: &str) -> Option<u64> {
        let mut path = path;
        loop {
            if let Some(line) = self.0.get(path) {
                return Some(*line);
            }
            path = path.get(..path.rfind(['.', '['])?)?;
        }
    }

    fn add(&mut self, path: &str, node: &Node) {
        match node {
            Node::Map(fields) => {
                for (key, value) in fields {
                    let child = if path.is_empty() { key.value.clone() } else { format!("{path}.{}", key.value) };
                    self.put(&child, key.referenced);
                    self.add(&child, value);
                }
            }
            Node::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    let child = format!("{path}[{index}]");
                    self.put(&child, item.referenced);
                    self.add(&child, &item.value);
                }
            }
            Node::Null | Node::Scalar => {}
        }
    }

    fn put(&mut self, path: &str, at: serde_saphyr::Location) {
        // 0 is the parser's word for a place that it does not know.
        if at.line() > 0 {
            self.0.insert(path.to_owned(), at.line());
        }
    }
}

/// As much of YAML as has places.
enum Node {
    Null,
    Scalar,
    Map(Vec<(Spanned<String>, Self)>),
    List(Vec<Spanned<Self>>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Nodes)
    }
}

struct Nodes;

impl<'de> Visitor<'de> for Nodes {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_str<E>(self, _: &str) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Node::Map(fields))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_where_they_stand() {
        let text = "# a fleet\nkind: A\nspec:\n  steps:\n    - gateways: 1\n    - gateways: 100%\n  list: [1, 2]\n---\n---\nkind: B\nmetadata: {name: b,\n  labels: {a.b/c: x}}\n";
        let documents = Lines::of(text);
        assert_eq!(documents.len(), 2);
        let [a, b] = documents.as_slice() else { panic!("{documents:?}") };
        for (path, line) in [
            ("kind", Some(2)),
            ("spec", Some(3)),
            ("spec.steps[1].gateways", Some(6)),
            ("spec.list[1]", Some(7)),
            ("spec.steps[0].missing.deeper", Some(5)),
            ("metadata.name", None),
            ("", None),
        ] {
            assert_eq!(a.find(path), line, "{path}");
        }
        let first = |paths: &[&str]| a.first(&paths.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(first(&["spec.model", "spec.list"]), Some(7));
        assert_eq!(first(&["spec.model", "spec.other"]), Some(3));
        assert_eq!(b.find("kind"), Some(10));
        assert_eq!(b.find("metadata.labels.a.b/c"), Some(12));
        assert_eq!(Lines::of("a: ["), []);
    }
}
