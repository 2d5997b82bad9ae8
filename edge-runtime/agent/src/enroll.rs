//! `ballast-edge enroll`: a token becomes an identity.

use std::sync::Arc;

use ballast_bundle::protocol::{EnrollRequest, Identity};

use crate::client::{Client, ClientError};
use crate::config::Config;
use crate::facts;
use crate::identity::{self, Enrolled, IdentityError};
use crate::state::StateDir;
use crate::time::Clock;
use crate::tls;
use crate::token::Token;

/// Why a gateway could not enrol.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnrollError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
}

/// Certificate, root and names are a few KiB.
const MAX_ANSWER: usize = 1 << 20;

/// Enrols with the key in the state directory; the same key again gives the same gateway.
pub(crate) async fn enroll(dir: &StateDir, config: &Config, token: &Token) -> Result<Enrolled, EnrollError> {
    let key = identity::key(dir)?;
    let request = EnrollRequest {
        token: token.secret.clone(),
        csr: identity::request(&key)?,
        display_name: config.name.clone().or_else(host_name),
        facts: facts::gather(config, dir.root(), None),
    };
    let client = Client::new(vec![token.endpoint.clone()], tls::pinned(token.ca_sha256, Arc::new(Clock::default()))?);
    let answer: Identity = client.post("/v1/enroll", &request, MAX_ANSWER).await?;
    Ok(Enrolled::accept(dir, &token.endpoint, &answer)?)
}

fn host_name() -> Option<String> {
    rustix::system::uname().nodename().to_str().ok().filter(|n| !n.is_empty()).map(str::to_owned)
}
