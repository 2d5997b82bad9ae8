//! The one place that tensors pass on their way out of a gateway.

use ballast_bundle::Privacy;

/// Tensors, and what they were made from.
#[derive(Debug, Clone)]
pub enum Tensors<T> {
    /// What a client sent.
    Input(T),
    /// What the head of a split model made.
    Features(T),
}

/// Tensors that may leave. Only [`Outgoing::gate`] makes one, and a client to the cloud takes nothing else.
///
/// ```compile_fail
/// ballast_escalation::Outgoing(vec![1u8]) // there is no way around the gate
/// ```
#[derive(Debug)]
pub struct Outgoing<T>(T);

/// They may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} would leave the gateway, and privacy is {privacy:?}; nothing was sent")]
pub struct MayNotLeave {
    what: &'static str,
    privacy: Privacy,
}

impl<T> Outgoing<T> {
    /// Lets tensors out that `privacy` allows to leave.
    pub fn gate(tensors: Tensors<T>, privacy: Privacy) -> Result<Self, MayNotLeave> {
        let (needs, what, inner) = match tensors {
            Tensors::Input(inner) => (Privacy::Any, "an input", inner),
            Tensors::Features(inner) => (Privacy::Features, "features", inner),
        };
        if privacy >= needs { Ok(Self(inner)) } else { Err(MayNotLeave { what, privacy }) }
    }

    /// For the client that sends them.
    pub fn into_inner(self) -> T {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_leave_is_what_was_allowed_and_nothing_is_by_default() {
        for (privacy, input, features) in
            [(Privacy::default(), false, false), (Privacy::Features, false, true), (Privacy::Any, true, true)]
        {
            assert_eq!(Outgoing::gate(Tensors::Input(1), privacy).is_ok(), input, "{privacy:?}");
            assert_eq!(Outgoing::gate(Tensors::Features(1), privacy).is_ok(), features, "{privacy:?}");
        }
        let error = Outgoing::gate(Tensors::Input(1), Privacy::Features).unwrap_err().to_string();
        assert_eq!(error, "an input would leave the gateway, and privacy is Features; nothing was sent");
    }
}
