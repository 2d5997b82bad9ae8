//! A small fleet from fixed seeds: two trust roots, one gateway, one deployment, one release, one runner. The same bytes on
//! every run, since signatures are deterministic.

use std::collections::BTreeMap;

use ballast_bundle::manifest::{blob_of, bundle_manifest};
use ballast_bundle::*;
use serde::{Deserialize, Serialize};

/// Files of one directory.
pub type Files = BTreeMap<String, Vec<u8>>;

/// What the gateway knows by itself: `gateway.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Gateway {
    pub audience: Audience,
    pub target: TargetName,
    pub deployment: DeploymentRef,
    pub floors: Floors,
    pub now: UnixMillis,
    /// Files of the trust roots, walked in this order.
    pub roots: Vec<String>,
}

/// A private key out of its number.
pub fn key(seed: u8) -> SigningKey {
    SigningKey::generate([seed; 32]).unwrap()
}

pub const ROOT_1: u8 = 1;
pub const ROOT_2: u8 = 2;
pub const RUNTIME: u8 = 3;
pub const RELEASE: u8 = 4;
pub const ASSIGNMENT: [u8; 3] = [5, 6, 7];
pub const STRANGER: u8 = 99;

/// 2026-01-01T00:00:00Z.
pub const ISSUED: u64 = 1_767_225_600_000;
pub const DAY: u64 = 24 * 60 * 60 * 1000;

pub fn keys_of(seeds: &[u8], threshold: u32) -> RoleKeys {
    let keys = seeds.iter().map(|s| key(*s).public()).map(|k| (k.key_id(), k.to_pem())).collect();
    RoleKeys { keys, threshold }
}

/// Everything before it is signed. Edit, then [`World::files`].
#[derive(Clone)]
pub struct World {
    pub gateway: Gateway,
    pub roots: Vec<(TrustRoot, Vec<u8>)>,
    pub pointer_keys: Vec<u8>,
    pub pointer_epoch: u32,
    pub sequence: u64,
    pub audience: Audience,
    pub assignment_namespace: NamespaceUid,
    pub contract: Contract,
    pub weights: Vec<u8>,
    pub plan: Vec<u8>,
    pub golden: Vec<u8>,
    pub release: ReleaseStatement,
    pub release_key: u8,
    pub runner: RunnerStatement,
    pub runner_module: Vec<u8>,
    pub runner_key: u8,
    /// Applied to the manifest's text before anything names its digest.
    pub manifest_edit: fn(String) -> String,
}

/// `inputs/image` and `outputs/scores` of three vectors, with labels.
pub fn golden_file(labels: [i64; 3]) -> Vec<u8> {
    let floats = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let inputs = floats(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    let outputs = floats(&[0.9, 0.1, 0.2, 0.8, 0.7, 0.3]);
    let labels: Vec<u8> = labels.iter().flat_map(|l| l.to_le_bytes()).collect();
    golden::write(&[
        ("inputs/image".into(), DataType::Fp32, vec![3, 1, 2], &inputs),
        ("outputs/scores".into(), DataType::Fp32, vec![3, 1, 2], &outputs),
        ("labels/scores".into(), DataType::Int64, vec![3], &labels),
    ])
}

fn placeholder() -> Blob {
    blob_of(b"")
}

impl World {
    /// The world in which everything is as it should be.
    pub fn good() -> Self {
        let fleet: FleetId = "fleet-1".parse().unwrap();
        let namespace: NamespaceUid = "3f0c1f9e-0001".parse().unwrap();
        let target: TargetName = "x86-64-v3".parse().unwrap();
        let deployment = DeploymentRef { namespace: namespace.clone(), name: "digits".into() };
        let audience =
            Audience { fleet: fleet.clone(), namespace: namespace.clone(), gateway: "gw-0001".parse().unwrap() };
        let number = |counter| ReleaseNumber { epoch: 1, counter: Counter(counter) };
        let tensor = |name: &str, shape: &[u64]| TensorSpec {
            name: name.into(),
            datatype: DataType::Fp32,
            shape: shape.to_vec(),
        };
        let contract = Contract {
            format: 1,
            model: "digits".into(),
            version: "1.0.0".into(),
            variant: "fp32".into(),
            target: target.clone(),
            abi: 1 << 16,
            batch: None,
            state: None,
            buckets: None,
            plan_major: 1,
            inputs: vec![tensor("image", &[1, 2])],
            outputs: vec![tensor("scores", &[1, 2])],
            counted: vec![],
            limits: Limits { memory_bytes: 1 << 20, deadline_millis: 100, instances: 1, max_queue: 16 },
            verification: Verification {
                golden_match: GoldenMatch::ArgMax,
                min_matching_per_mille: 1000,
                tolerance: Tolerance { absolute: 1e-4, relative: 1e-3 },
                finite_outputs: true,
                max_latency_p99_millis: None,
                user_golden: true,
            },
        };
        let root = |version: u64, root_key: u8| TrustRoot {
            format: 1,
            fleet: fleet.clone(),
            version,
            epoch: 1,
            minimum_compiler: 3,
            roles: [
                (Role::Root, keys_of(&[root_key], 1)),
                (Role::Runtime, keys_of(&[RUNTIME], 1)),
                (Role::Release, keys_of(&[RELEASE], 1)),
                (Role::Assignment, keys_of(&ASSIGNMENT, 2)),
            ]
            .into(),
            ca: vec!["-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n".into()],
            endpoints: vec!["https://fleet.example:8443".into()],
            issued: UnixMillis(ISSUED),
        };
        let floors = Floors {
            sequence: Counter(ISSUED + 10),
            epoch: 1,
            releases: [(deployment.clone(), number(100))].into(),
            runners: [(target.clone(), number(10))].into(),
        };
        Self {
            gateway: Gateway {
                audience: audience.clone(),
                target: target.clone(),
                deployment: deployment.clone(),
                floors,
                now: UnixMillis(ISSUED + DAY),
                roots: vec!["root-1.json".into(), "root-2.json".into()],
            },
            roots: vec![(root(1, ROOT_1), vec![ROOT_1]), (root(2, ROOT_2), vec![ROOT_1, ROOT_2])],
            pointer_keys: ASSIGNMENT[..2].to_vec(),
            pointer_epoch: 1,
            sequence: ISSUED + 20,
            audience,
            assignment_namespace: namespace,
            contract,
            weights: (0..=255).cycle().take(1000).collect(),
            plan: b"a plan".to_vec(),
            golden: golden_file([0, 1, 0]),
            release: ReleaseStatement {
                deployment,
                version: "1.0.0".into(),
                number: number(101),
                target: target.clone(),
                abi: 1 << 16,
                compiler: 3,
                manifest: placeholder(),
                layers: ReleaseLayers {
                    weights: placeholder(),
                    plan: placeholder(),
                    contract: placeholder(),
                    golden: placeholder(),
                },
            },
            release_key: RELEASE,
            runner: RunnerStatement {
                number: number(11),
                target,
                triple: "x86_64-unknown-linux-gnu".into(),
                cpu_features: vec!["avx".into(), "avx2".into(), "fma".into()],
                profile: Digest::of(b"profile"),
                engine: "wasmtime 48.0.8".into(),
                abi: 1 << 16,
                plan_majors: vec![1],
                wasm: Digest::of(b"wasm"),
                module: placeholder(),
            },
            runner_module: b"native code".repeat(50),
            runner_key: RUNTIME,
            manifest_edit: |manifest| manifest,
        }
    }

    /// Signs everything, leaf to root, as the operator would; each document names the digest of the one before.
    pub fn files(mut self) -> Files {
        let contract = to_json(&self.contract);
        let layers = ReleaseLayers {
            weights: blob_of(&self.weights),
            plan: blob_of(&self.plan),
            contract: blob_of(&contract),
            golden: blob_of(&self.golden),
        };
        let manifest = bundle_manifest(&layers, &self.contract).manifest;
        let manifest = (self.manifest_edit)(String::from_utf8(manifest).unwrap()).into_bytes();
        self.release.layers = layers;
        self.release.manifest = blob_of(&manifest);
        self.runner.module = blob_of(&self.runner_module);
        let release = sign_release(&self.release, &key(self.release_key));
        let runner = sign_runner(&self.runner, &key(self.runner_key));
        self.with_statements(
            release,
            runner,
            vec![
                ("manifest.json", manifest),
                ("contract.json", contract),
                ("weights.bin", self.weights.clone()),
                ("plan.bin", self.plan.clone()),
                ("golden.safetensors", self.golden.clone()),
                ("runner.bin", self.runner_module.clone()),
            ],
        )
    }

    /// The documents above given statements: assignment, pointer, roots.
    pub fn with_statements(&self, release: Vec<u8>, runner: Vec<u8>, blobs: Vec<(&str, Vec<u8>)>) -> Files {
        let assignment = to_json(&Assignment {
            format: 1,
            namespace: self.assignment_namespace.clone(),
            target: self.gateway.target.clone(),
            runner: Some(RunnerRef {
                repository: "runners/x86-64-v3".into(),
                module: self.runner.module.clone(),
                statement: blob_of(&runner),
            }),
            deployments: vec![AssignedDeployment {
                deployment: self.gateway.deployment.clone(),
                model: "digits".into(),
                want: Some(ReleaseRef {
                    version: self.release.version.clone(),
                    number: self.release.number,
                    repository: self.gateway.deployment.to_string(),
                    manifest: self.release.manifest.clone(),
                    statement: blob_of(&release),
                }),
                stable: None,
                trial: TrialPolicy { min_duration_millis: 1000, min_requests: 20, max_failures: 0 },
                escalation: None,
            }],
        });
        let pointer = to_json(&Pointer {
            format: 1,
            audience: self.audience.clone(),
            assignment: blob_of(&assignment),
            epoch: self.pointer_epoch,
            sequence: Counter(self.sequence),
            issued: UnixMillis(ISSUED),
            expires: UnixMillis(ISSUED + 7 * DAY),
        });
        let pointer_keys: Vec<SigningKey> = self.pointer_keys.iter().map(|k| key(*k)).collect();
        let pointer = sign_envelope(POINTER_TYPE, &pointer, &pointer_keys.iter().collect::<Vec<_>>());
        let mut files: Files = blobs.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect();
        for (root, signers) in &self.roots {
            let keys: Vec<SigningKey> = signers.iter().map(|k| key(*k)).collect();
            let envelope = sign_root(root, &keys.iter().collect::<Vec<_>>());
            files.insert(format!("root-{}.json", root.version), to_json(&envelope));
        }
        files.extend([
            ("assignment.json".to_owned(), assignment),
            ("pointer.json".to_owned(), to_json(&pointer)),
            ("release.json".to_owned(), release),
            ("runner.json".to_owned(), runner),
            ("gateway.json".to_owned(), to_json(&self.gateway)),
        ]);
        files
    }
}
