//! Open connections by gateway, so that one that is retired or revoked loses them at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ballast_bundle::GatewayId;
use tokio::sync::Notify;

type Open = HashMap<GatewayId, HashMap<u64, Arc<Notify>>>;

/// The registry of open connections.
#[derive(Default)]
pub struct Connections {
    inner: Mutex<(u64, Open)>,
}

impl Connections {
    /// Closes all connections of a gateway. It may come back; its row decides whether anybody listens.
    pub fn close(&self, gateway: &GatewayId) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, notify) in inner.1.remove(gateway).into_iter().flatten() {
            notify.notify_one();
        }
    }

    /// How many connections a gateway has.
    pub fn count(&self, gateway: &GatewayId) -> usize {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).1.get(gateway).map_or(0, HashMap::len)
    }

    pub(crate) fn open(self: &Arc<Self>, gateway: GatewayId) -> Guard {
        let notify = Arc::new(Notify::new());
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.0 += 1;
        let number = inner.0;
        inner.1.entry(gateway.clone()).or_default().insert(number, Arc::clone(&notify));
        drop(inner);
        Guard { connections: Arc::clone(self), gateway, number, notify }
    }
}

/// One open connection; leaves the registry when dropped.
pub(crate) struct Guard {
    connections: Arc<Connections>,
    gateway: GatewayId,
    number: u64,
    notify: Arc<Notify>,
}

impl Guard {
    /// Ends when the connection must be closed.
    pub(crate) async fn closed(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut inner = self.connections.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = inner.1.get_mut(&self.gateway) {
            open.remove(&self.number);
            if open.is_empty() {
                inner.1.remove(&self.gateway);
            }
        }
    }
}
