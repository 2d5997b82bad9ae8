//! Secrets: the installation's keys, and the tokens that gateways enrol with.
//!
//! What is once there is never overwritten: keys are immutable Secrets, read by their names; a token's Secret is created and
//! never read, so that the operator needs no right to read the Secrets of other namespaces.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ballast_crds::{API_VERSION, EnrollmentToken};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt as _};

use super::FIELD_MANAGER;
use super::connection::{Connection, KubernetesError, ask};
use crate::keys::{KEYS, KeyError, Vault};

/// The Secret of a key's file: one for each role, and one for the authority's key with its certificate.
fn secret_of(file: &str) -> String {
    let stem = file.trim_end_matches(".pem");
    format!("ballast-key-{}", stem.strip_suffix("-certificate").unwrap_or(stem))
}

fn labels() -> BTreeMap<String, String> {
    BTreeMap::from([("app.kubernetes.io/managed-by".to_owned(), FIELD_MANAGER.to_owned())])
}

fn parameters() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() }
}

/// Keys in Secrets of the operator's own namespace.
pub struct KeySecrets {
    api: Api<Secret>,
    namespace: String,
    there: BTreeMap<String, String>,
    made: BTreeMap<String, String>,
}

impl KeySecrets {
    /// Reads what is there. A refusal is no absence: it is an error.
    pub async fn read(connection: &Connection) -> Result<Self, KubernetesError> {
        let api = Api::<Secret>::namespaced(connection.client.clone(), &connection.namespace);
        let mut there = BTreeMap::new();
        for file in KEYS {
            let name = secret_of(file);
            let secret = ask(&format!("reading the Secret {name}"), api.get_opt(&name)).await?;
            let data = secret.and_then(|secret| secret.data).unwrap_or_default();
            if let Some(text) = data.get(file).and_then(|bytes| String::from_utf8(bytes.0.clone()).ok()) {
                there.insert(file.to_owned(), text);
            }
        }
        Ok(Self { api, namespace: connection.namespace.clone(), there, made: BTreeMap::new() })
    }

    /// Whether all of them were there once, as the Secrets themselves tell: see [`was_whole`].
    pub fn was_whole(&self) -> bool {
        was_whole(|file| self.there.contains_key(file))
    }

    /// Creates the Secrets of what was made, in the order of their names. Nothing may be signed before; a name that is taken is an error, since then
    /// somebody else made keys at the same time.
    pub async fn keep(self) -> Result<(), KubernetesError> {
        let mut secrets = BTreeMap::<String, BTreeMap<String, ByteString>>::new();
        for (file, text) in self.made {
            secrets.entry(secret_of(&file)).or_default().insert(file, ByteString(text.into_bytes()));
        }
        for (name, data) in secrets {
            let doing = format!("creating the Secret {}/{name}", self.namespace);
            let metadata = ObjectMeta { name: Some(name), labels: Some(labels()), ..ObjectMeta::default() };
            let secret = Secret { metadata, data: Some(data), immutable: Some(true), ..Secret::default() };
            ask(&doing, self.api.create(&parameters(), &secret)).await?;
        }
        Ok(())
    }
}

/// [`KeySecrets::keep`] creates Secrets in the order of their names, so a start that was cut off leaves the first ones
/// only. One that is there after one that is missing says that the missing one is lost, not unmade.
fn was_whole(there: impl Fn(&str) -> bool) -> bool {
    let mut secrets = BTreeMap::<String, bool>::new();
    for file in KEYS {
        *secrets.entry(secret_of(file)).or_insert(true) &= there(file);
    }
    secrets.into_values().skip_while(|whole| *whole).any(|whole| whole)
}

impl Vault for KeySecrets {
    fn read(&self, file: &str) -> Result<Option<String>, KeyError> {
        Ok(self.made.get(file).or_else(|| self.there.get(file)).cloned())
    }

    fn make(&mut self, file: &str, text: &str) -> Result<(), KeyError> {
        self.made.insert(file.to_owned(), text.to_owned());
        Ok(())
    }

    fn place(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("{}/{} ({file})", self.namespace, secret_of(file)))
    }
}

/// Puts a token's text into the Secret `NAME-enrollment` beside its object, with which it goes. One that is there is left
/// alone: it holds this text of an earlier start, or, where the text is `fresh`, another one.
pub(super) async fn hand_over(
    client: &Client,
    token: &EnrollmentToken,
    text: &str,
    fresh: bool,
) -> Result<(), KubernetesError> {
    let (namespace, name) = (token.namespace().unwrap_or_default(), token.name_any());
    let owner = OwnerReference {
        api_version: API_VERSION.into(),
        kind: "EnrollmentToken".into(),
        name: name.clone(),
        uid: token.uid().unwrap_or_default(),
        ..OwnerReference::default()
    };
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(format!("{name}-enrollment")),
            labels: Some(labels()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([("token".to_owned(), ByteString(text.as_bytes().to_vec()))])),
        immutable: Some(true),
        ..Secret::default()
    };
    let api = Api::<Secret>::namespaced(client.clone(), &namespace);
    let doing = format!("creating the Secret {namespace}/{name}-enrollment");
    match ask(&doing, api.create(&parameters(), &secret)).await {
        Err(error) if error.is_conflict() && !fresh => Ok(()),
        Err(KubernetesError::Refused { doing, code: 409, .. }) => {
            let message = "it is there and holds another text, which gateways cannot enrol with; delete the EnrollmentToken and apply it again, or delete the Secret".into();
            Err(KubernetesError::Refused { doing, message, code: 409 })
        }
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_has_a_secret_and_the_authority_is_whole_in_one() {
        let names: Vec<_> = KEYS.iter().map(|file| secret_of(file)).collect();
        assert_eq!(
            names[..4],
            ["ballast-key-root", "ballast-key-runtime", "ballast-key-release", "ballast-key-assignment"]
        );
        assert_eq!(names[4..], ["ballast-key-ca", "ballast-key-ca"]);
    }

    #[test]
    fn keys_that_are_lost_are_told_from_those_that_a_first_start_did_not_come_to() {
        let order = [
            &["assignment.pem"][..],
            &["ca.pem", "ca-certificate.pem"],
            &["release.pem"],
            &["root.pem"],
            &["runtime.pem"],
        ];
        for made in 0..=order.len() {
            let there = order[..made].concat();
            assert!(!was_whole(|file| there.contains(&file)), "{there:?}: cut off, or nothing is missing");
        }
        for lost in 0..order.len() - 1 {
            let there = [&order[..lost], &order[lost + 1..]].concat().concat();
            assert!(was_whole(|file| there.contains(&file)), "{there:?}");
        }
    }
}
