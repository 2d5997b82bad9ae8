//! Identifiers that other rooms share: [`Digest`], [`Counter`], [`TargetName`], [`GatewayId`], ….

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Why a string is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not a {kind}: {expected}")]
pub struct InvalidId {
    kind: &'static str,
    value: String,
    expected: &'static str,
}

/// SHA-256 of some bytes, written `sha256:<64 lower-case hex digits>` as OCI does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// A digest computed elsewhere, while the bytes streamed by.
    pub const fn from_raw(raw: [u8; 32]) -> Self {
        Self(raw)
    }

    /// The 32 raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hex digits without the algorithm's name; the name of the file that holds the blob.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = InvalidId;

    fn from_str(s: &str) -> Result<Self, InvalidId> {
        let invalid = || InvalidId {
            kind: "digest",
            value: s.chars().take(80).collect(),
            expected: "write sha256:<64 hex digits>",
        };
        let digits = s.strip_prefix("sha256:").ok_or_else(invalid)?;
        if digits.len() != 64 || digits.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(invalid());
        }
        let mut raw = [0; 32];
        hex::decode_to_slice(digits, &mut raw).map_err(|_| invalid())?;
        Ok(Self(raw))
    }
}

macro_rules! serde_as_string {
    ($t:ty) => {
        impl Serialize for $t {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $t {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let s = String::deserialize(d)?;
                s.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
serde_as_string!(Digest);

/// A release's number: it only grows. New ones are `max(last known + 1, Unix milliseconds)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Counter(pub u64);

impl Counter {
    /// The counter after `last` at `now` (milliseconds since 1970).
    pub fn next(last: Option<Counter>, now_unix_millis: u64) -> Self {
        Self(last.map_or(0, |c| c.0.saturating_add(1)).max(now_unix_millis))
    }
}

impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a gateway's rollback floor is made of. Ordered: epoch first; only the root role raises it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct ReleaseNumber {
    /// Raised only by the root role; a higher epoch resets counters.
    pub epoch: u32,
    /// Grows within an epoch.
    pub counter: Counter,
}

impl fmt::Display for ReleaseNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.counter)
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $t:ident, $kind:literal, $max:literal, $extra:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $t(String);

        impl $t {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $t {
            type Err = InvalidId;

            fn from_str(s: &str) -> Result<Self, InvalidId> {
                let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || $extra.as_bytes().contains(&b);
                let outer = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
                let bytes = s.as_bytes();
                if bytes.len() <= $max && bytes.iter().all(|b| inner(*b)) && outer(bytes.first()) && outer(bytes.last()) {
                    Ok(Self(s.to_owned()))
                } else {
                    Err(InvalidId {
                        kind: $kind,
                        value: s.chars().take(80).collect(),
                        expected: concat!("write at most ", $max, " lower-case letters, digits and '-", $extra, "', a letter or digit at both ends"),
                    })
                }
            }
        }
        serde_as_string!($t);
    };
}

name!(
    /// A HardwareTarget's name, as `metadata.name` allows it: `x86-64-v3`, `cortex-a76`.
    TargetName, "target name", 63, "."
);
name!(
    /// One enrolled gateway, named by the operator at enrolment; never chosen by the gateway.
    GatewayId, "gateway id", 63, ""
);
name!(
    /// A namespace's UID: what a gateway, its audience and its repository path belong to.
    NamespaceUid, "namespace UID", 63, ""
);
name!(
    /// The fleet (one operator installation), named when its root is made.
    FleetId, "fleet id", 63, ""
);

/// `<namespace UID>/<name>` of a ModelDeployment; also the repository path of its bundles below `/v2/`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeploymentRef {
    /// The namespace that owns it.
    pub namespace: NamespaceUid,
    /// `metadata.name`.
    pub name: String,
}

impl fmt::Display for DeploymentRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_read_only_their_own_form() {
        let digest = Digest::of(b"");
        assert_eq!(digest.to_string(), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        for bad in ["", "sha256:", "sha512:00", &digest.hex(), &digest.to_string().to_uppercase()] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_refuse_paths_and_upper_case() {
        assert!("cortex-a76".parse::<TargetName>().is_ok());
        for bad in ["", "-a", "a-", "A", "a/b", "..", "a b"] {
            assert!(bad.parse::<TargetName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn counters_only_grow_even_when_the_clock_goes_back() {
        assert_eq!(Counter::next(None, 5), Counter(5));
        assert_eq!(Counter::next(Some(Counter(9)), 5), Counter(10));
    }
}
