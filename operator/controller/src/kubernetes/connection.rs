//! The way to the API server.

use std::time::Duration;

use kube::{Client, Config};

/// Of one request that is no watch: an API server that does not answer for so long is not there.
const PATIENCE: Duration = Duration::from_secs(30);

/// Something that Kubernetes did not give.
#[derive(Debug, thiserror::Error)]
pub enum KubernetesError {
    /// No configuration.
    #[error(
        "no way to a Kubernetes API server: {0}; run in a pod with a service account, or set KUBECONFIG, or use --directory"
    )]
    Configuration(String),
    /// A request was refused.
    #[error("{doing}: {message}")]
    Refused {
        /// What was tried.
        doing: String,
        /// The API server's words.
        message: String,
        /// As HTTP knows it: 403, 404, 409, ….
        code: u16,
    },
    /// No answer.
    #[error("{doing}: the API server does not answer: {message}")]
    Unreachable {
        /// What was tried.
        doing: String,
        /// Why.
        message: String,
    },
}

impl KubernetesError {
    /// The API server's answer, if there was one.
    pub const fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::Configuration(_) | Self::Unreachable { .. } => None,
        }
    }

    /// Somebody was faster, or the object is another one by now.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// Whether the same request may go through by itself a little later: nobody answered, or the server was busy or broken.
    /// Any other refusal stays until somebody changes something.
    pub fn may_pass(&self) -> bool {
        self.code().is_none_or(|code| matches!(code, 408 | 429) || code >= 500)
    }

    /// The object is gone.
    pub fn is_gone(&self) -> bool {
        self.code() == Some(404)
    }
}

/// A client, and the namespace that the operator itself lives in.
#[derive(Clone)]
pub struct Connection {
    /// For everything.
    pub client: Client,
    /// Keys and the Lease are there.
    pub namespace: String,
}

impl Connection {
    /// As `KUBECONFIG` or the pod says; `namespace` instead of what that says.
    pub async fn open(namespace: Option<String>) -> Result<Self, KubernetesError> {
        let fail = |error: &dyn std::fmt::Display| KubernetesError::Configuration(error.to_string());
        let mut config = Config::infer().await.map_err(|error| fail(&error))?;
        config.connect_timeout = Some(Duration::from_secs(10));
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| fail(&error))?;
        Ok(Self { client, namespace })
    }
}

/// Waits for an answer, for so long and no longer.
pub(super) async fn ask<T>(
    doing: &str,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, KubernetesError> {
    let doing = || doing.to_owned();
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) => {
            Err(KubernetesError::Refused { doing: doing(), message: status.message.clone(), code: status.code })
        }
        Ok(Err(error)) => Err(KubernetesError::Unreachable { doing: doing(), message: innermost(&error) }),
        Err(_) => {
            let message = format!("nothing came within {} s", PATIENCE.as_secs());
            Err(KubernetesError::Unreachable { doing: doing(), message })
        }
    }
}

/// The cause that helps: "connection refused", not "client error".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_stays_unless_the_server_is_to_blame() {
        let refused = |code| KubernetesError::Refused { doing: String::new(), message: String::new(), code };
        for code in [400, 401, 403, 404, 409, 413, 422] {
            assert!(!refused(code).may_pass(), "{code}");
        }
        for code in [408, 429, 500, 503, 504] {
            assert!(refused(code).may_pass(), "{code}");
        }
        assert!(KubernetesError::Unreachable { doing: String::new(), message: String::new() }.may_pass());
    }
}
