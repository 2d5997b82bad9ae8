//! Whose turn it is: everybody who waits is served before anybody is served again.

use std::collections::BTreeMap;
use std::ops::Bound;

/// Takes the one after `last`, or the first one when nobody is.
pub(super) fn take_next<K: Ord + Clone, V>(waiting: &mut BTreeMap<K, V>, last: Option<&K>) -> Option<(K, V)> {
    let after = last.and_then(|last| waiting.range((Bound::Excluded(last), Bound::Unbounded)).next());
    let key = after.or_else(|| waiting.first_key_value())?.0.clone();
    waiting.remove_entry(&key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_comes_back_at_once_stops_nobody() {
        let mut waiting = BTreeMap::from([("a", 1), ("b", 2), ("c", 3)]);
        let mut last = None;
        let mut served = Vec::new();
        for _ in 0..5 {
            let (key, value) = take_next(&mut waiting, last.as_ref()).unwrap();
            served.push(key);
            if key == "a" {
                waiting.insert(key, value);
            }
            last = Some(key);
        }
        assert_eq!(served, ["a", "b", "c", "a", "a"]);
        waiting.clear();
        assert_eq!(take_next(&mut waiting, last.as_ref()), None);
    }
}
