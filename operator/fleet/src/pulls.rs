//! Places for pulls: so many in all, and of those only a few for any one gateway. A gateway that opens many, or whose
//! network drops one after the other without an end, takes nobody else's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ballast_bundle::GatewayId;

/// Who holds how many.
#[derive(Debug)]
pub(crate) struct Pulls {
    all: usize,
    each: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    by_gateway: HashMap<GatewayId, usize>,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// All are taken.
    All,
    /// This gateway has as many as one may have.
    Gateway(usize),
}

impl Pulls {
    pub(crate) fn new(all: usize, each: usize) -> Arc<Self> {
        Arc::new(Self { all, each, held: Mutex::default() })
    }

    /// A place until it is dropped.
    pub(crate) fn take(self: &Arc<Self>, gateway: &GatewayId) -> Result<Pull, Full> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.by_gateway.get(gateway).is_some_and(|count| *count >= self.each) {
            return Err(Full::Gateway(self.each));
        }
        if held.all >= self.all {
            return Err(Full::All);
        }
        held.all += 1;
        *held.by_gateway.entry(gateway.clone()).or_default() += 1;
        Ok(Pull { pulls: Arc::clone(self), gateway: gateway.clone() })
    }
}

/// A place that is held.
#[derive(Debug)]
pub(crate) struct Pull {
    pulls: Arc<Pulls>,
    gateway: GatewayId,
}

impl Drop for Pull {
    fn drop(&mut self) {
        let mut held = self.pulls.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.all = held.all.saturating_sub(1);
        if let Some(count) = held.by_gateway.get_mut(&self.gateway) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                held.by_gateway.remove(&self.gateway);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back_and_nothing_is_remembered_of_who_left() {
        let pulls = Pulls::new(3, 2);
        let [a, b] = ["gw-a", "gw-b"].map(|id| id.parse::<GatewayId>().unwrap());
        let first = pulls.take(&a).unwrap();
        let _second = pulls.take(&a).unwrap();
        assert_eq!(pulls.take(&a).unwrap_err(), Full::Gateway(2));
        let third = pulls.take(&b).unwrap();
        assert_eq!(pulls.take(&b).unwrap_err(), Full::All);
        drop(first);
        let again = pulls.take(&a).unwrap();
        assert_eq!(pulls.take(&a).unwrap_err(), Full::Gateway(2));
        drop((again, third));
        let held = pulls.held.lock().unwrap();
        assert_eq!((held.all, held.by_gateway.len()), (1, 1));
    }
}
