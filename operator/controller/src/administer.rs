//! Wishes that are not about models: gateways that are retired, revoked or labelled. Those about tokens are in
//! `token_objects`.

use std::collections::HashMap;
use std::sync::PoisonError;

use ballast_bundle::{GatewayId, NamespaceUid};
use ballast_fleet::store::{GatewayState, StoreError};
use ballast_fleet::{Fleet, Wish};

use crate::controller::Controller;
use crate::objects::Objects;

impl Controller {
    /// Carries out what the objects say of tokens and gateways. Errors are logged and tried again by the next pass.
    pub(crate) async fn administer(&self, objects: &Objects, fleet: &Fleet) {
        self.keep_tokens(objects).await;
        let wishes: HashMap<_, _> =
            objects.gateways.iter().map(|(ns, id, wish)| ((ns.clone(), id.clone()), usable(wish))).collect();
        let before = {
            let mut current = self.wishes.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, wishes.clone())
        };
        for ((namespace, id), wish) in &wishes {
            if before.get(&(namespace.clone(), id.clone())) == Some(wish) {
                continue;
            }
            let asked = objects.gateways.iter().find(|(ns, gateway, _)| ns == namespace && gateway == id);
            if let Some(Err(error)) = asked.and_then(|(_, _, w)| w.labels.as_ref()).map(ballast_fleet::labels::check) {
                tracing::error!("the Gateway object {id}: spec.labels: {error}; the gateway keeps its labels");
            }
            match self.store.gateway(id.clone()).await {
                Ok(Some(row)) if row.namespace == *namespace => {}
                // Not enrolled here (yet): the wish waits for it.
                Ok(_) => continue,
                Err(e) => {
                    tracing::error!(gateway = %id, error = %e, "a gateway's row could not be read; tried again");
                    self.again(namespace, id);
                    continue;
                }
            }
            match self.store.wish(id.clone(), wish.state, wish.labels.clone()).await {
                Ok(row) => {
                    tracing::info!(gateway = %id, state = ?row.state, "gateway set as its object says");
                    if row.state != GatewayState::Enrolled {
                        fleet.connections().close(id);
                    }
                    let target = row.target.clone();
                    let reports = self.store.reports(id.clone()).await.unwrap_or_default();
                    self.roster.update(row, reports, target);
                }
                Err(StoreError::NoGateway(_)) => {}
                Err(e @ StoreError::Revoked(_)) => {
                    tracing::error!("the Gateway object {id} cannot be carried out: {e}")
                }
                Err(e) => {
                    tracing::error!(gateway = %id, error = %e, "a gateway's wish could not be stored; tried again");
                    self.again(namespace, id);
                }
            }
        }
    }

    /// The next pass carries this wish out.
    fn again(&self, namespace: &NamespaceUid, id: &GatewayId) {
        let mut wishes = self.wishes.write().unwrap_or_else(PoisonError::into_inner);
        wishes.remove(&(namespace.clone(), id.clone()));
    }
}

/// Labels that no certificate can carry would lock the gateway out at its next renewal: it keeps those that it has.
fn usable(wish: &Wish) -> Wish {
    let labels = wish.labels.clone().filter(|labels| ballast_fleet::labels::check(labels).is_ok());
    Wish { labels, ..wish.clone() }
}
