//! Configuration: a TOML file, environment variables over it, `--set` and other flags over both.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ballast_bundle::Privacy;
use serde::{Deserialize, Serialize};

mod keys;

pub use keys::{KEYS, Key, Kind, documentation};
use keys::{kind, nearest};

/// Where the file is looked for when none is named.
pub const DEFAULT_FILE: &str = "/etc/ballast/edge.toml";
/// Environment variables: `BALLAST_EDGE_` and the key in capitals with `__` for dots.
const ENV_PREFIX: &str = "BALLAST_EDGE_";
/// A configuration is a page or two.
const MAX_FILE: u64 = 1 << 20;

/// Why a configuration was not accepted.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // each variant's sentence says what its fields are
pub enum ConfigError {
    #[error("the configuration {path} cannot be read")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the configuration {path} is not valid TOML: {message}")]
    Syntax { path: PathBuf, message: String },
    #[error("{origin} names {key:?}, which ballast-edge does not know{nearest}; the keys are: {known}")]
    Unknown { origin: String, key: String, nearest: String, known: String },
    #[error("{origin} has a wrong value: {message}")]
    Value { origin: String, message: String },
    #[error("--set takes KEY=VALUE, as in --set serve.http=127.0.0.1:8000; this is {0:?}")]
    Set(String),
}

/// Everything that can be configured. What each key means stands in [`KEYS`], from which the documentation is made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)] // documented in KEYS
pub struct Config {
    pub state: PathBuf,
    pub name: Option<String>,
    pub engine: EngineKind,
    pub serve: Serve,
    pub fetch: Fetch,
    pub limits: Limits,
    pub cpu_features: CpuFeatures,
    pub facts: BTreeMap<String, String>,
    pub privacy: Privacy,
    pub sync: Sync,
}

/// What may run here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// Native code under the runtime role's signature.
    #[default]
    Native,
    /// Bytecode for Wasmtime's interpreter only.
    Interpreter,
}

/// `[serve]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Serve {
    pub http: String,
    pub unix: Option<PathBuf>,
    pub token_file: Option<PathBuf>,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub client_ca: Option<PathBuf>,
    pub max_request_bytes: u64,
    pub max_connections: u32,
    pub body_seconds: u64,
    pub drain_seconds: u64,
}

/// `[fetch]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Fetch {
    pub retry_seconds: u64,
}

/// `[limits]`; 0 = chosen from the machine.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Limits {
    pub memory: Size,
    pub disk: Size,
}

/// `[cpu_features]`
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct CpuFeatures {
    pub deny: Vec<String>,
}

/// `[sync]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Sync {
    pub wait_seconds: u64,
    pub max_backoff_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state: PathBuf::from("/var/lib/ballast"),
            name: None,
            engine: EngineKind::default(),
            serve: Serve::default(),
            fetch: Fetch::default(),
            limits: Limits::default(),
            cpu_features: CpuFeatures::default(),
            facts: BTreeMap::new(),
            privacy: Privacy::default(),
            sync: Sync::default(),
        }
    }
}

impl Default for Serve {
    fn default() -> Self {
        Self {
            http: "127.0.0.1:8000".to_owned(),
            unix: None,
            token_file: None,
            certificate: None,
            key: None,
            client_ca: None,
            max_request_bytes: 16 << 20,
            max_connections: 256,
            body_seconds: 30,
            drain_seconds: 30,
        }
    }
}

impl Default for Fetch {
    fn default() -> Self {
        Self { retry_seconds: 5 }
    }
}

impl Default for Sync {
    fn default() -> Self {
        Self { wait_seconds: 60, max_backoff_seconds: 300 }
    }
}

/// A number of bytes: `268435456`, `"256Mi"` or `"1Gi"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Size(pub u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(u64),
            Text(String),
        }
        match Form::deserialize(d)? {
            Form::Number(n) => Ok(Self(n)),
            Form::Text(text) => {
                let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
                let unit: Option<u64> = match unit {
                    "" => Some(1),
                    "Ki" => Some(1 << 10),
                    "Mi" => Some(1 << 20),
                    "Gi" => Some(1 << 30),
                    _ => None,
                };
                let size = digits.parse().ok().zip(unit).and_then(|(n, unit): (u64, u64)| n.checked_mul(unit));
                size.map(Self).ok_or_else(|| {
                    serde::de::Error::custom(format!("{text:?} is not a number of bytes; write 256Mi, 1Gi or a number"))
                })
            }
        }
    }
}

impl Config {
    /// Reads `file` (or the default one where it exists), then the environment, then `sets` (`KEY=VALUE`).
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        sets: &[String],
    ) -> Result<Self, ConfigError> {
        let mut table = toml::Table::new();
        let path = file.map_or_else(|| PathBuf::from(DEFAULT_FILE), Path::to_owned);
        match read(&path) {
            Ok(text) => {
                let parsed: toml::Table = text.parse().map_err(|e: toml::de::Error| ConfigError::Syntax {
                    path: path.clone(),
                    message: e.to_string().trim().to_owned(),
                })?;
                check_names(&format!("the configuration {}", path.display()), "", &parsed)?;
                table = parsed;
                let message = |e: toml::de::Error| e.to_string().trim().to_owned();
                table.clone().try_into::<Config>().map_err(|e| ConfigError::Value {
                    origin: format!("the configuration {}", path.display()),
                    message: message(e),
                })?;
            }
            Err(e) if file.is_none() && e.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(ConfigError::Read { path, source }),
        }
        let mut overrides = Vec::new();
        for (name, value) in environment {
            // Of the flags' own variables only those with this prefix are keys.
            if let Some(key) = name.strip_prefix(ENV_PREFIX) {
                let key = key.to_ascii_lowercase().replace("__", ".");
                overrides.push((format!("the environment variable {name}"), key, value));
            }
        }
        for set in sets {
            let (key, value) = set.split_once('=').ok_or_else(|| ConfigError::Set(set.clone()))?;
            overrides.push((format!("--set {set}"), key.trim().to_owned(), value.trim().to_owned()));
        }
        let mut config: Config = table.clone().try_into().unwrap_or_default();
        for (origin, key, value) in overrides {
            let Some(kind) = kind(&key) else { return Err(unknown(origin, key)) };
            insert(&mut table, &key, parse_value(&value, kind));
            config = table.clone().try_into().map_err(|e: toml::de::Error| ConfigError::Value {
                origin,
                message: e.to_string().trim().to_owned(),
            })?;
        }
        Ok(config)
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(text)
}

fn unknown(origin: String, key: String) -> ConfigError {
    let known: Vec<_> = KEYS.iter().map(|k| k.name).collect();
    let nearest = nearest(&key).map(|name| format!("; did you mean {name:?}?")).unwrap_or_default();
    let key = key.chars().take(100).collect();
    ConfigError::Unknown { origin, key, nearest, known: known.join(", ") }
}

fn check_names(origin: &str, prefix: &str, table: &toml::Table) -> Result<(), ConfigError> {
    for (name, value) in table {
        let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            toml::Value::Table(inner) if name != "facts" => check_names(origin, &name, inner)?,
            _ if kind(&name).is_some() => {}
            _ => return Err(unknown(origin.to_owned(), name)),
        }
    }
    Ok(())
}

fn insert(table: &mut toml::Table, key: &str, value: toml::Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((first, rest)) => {
            let inner = table.entry(first.to_owned()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            if let toml::Value::Table(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

/// What was meant: quotes and brackets as in TOML are understood, and not needed.
fn parse_value(text: &str, kind: Kind) -> toml::Value {
    let parsed = || format!("v = {text}").parse::<toml::Table>().ok().and_then(|mut t| t.remove("v"));
    let as_text = || toml::Value::String(text.to_owned());
    match kind {
        Kind::Text => parsed().filter(toml::Value::is_str).unwrap_or_else(as_text),
        Kind::Number | Kind::Size => parsed().filter(|v| v.is_integer() || v.is_str()).unwrap_or_else(as_text),
        Kind::Names => parsed().filter(toml::Value::is_array).unwrap_or_else(|| {
            let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
            toml::Value::Array(names.map(|name| toml::Value::String(name.to_owned())).collect())
        }),
        Kind::Table => parsed().filter(toml::Value::is_table).unwrap_or_else(as_text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, env: &[(&str, &str)], sets: &[&str]) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.toml");
        std::fs::write(&path, text).unwrap();
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let sets: Vec<_> = sets.iter().map(|s| (*s).to_owned()).collect();
        Config::load(Some(&path), env, &sets)
    }

    #[test]
    fn environment_comes_over_the_file_and_flags_over_both() {
        let text = "[serve]\nhttp = \"a:1\"\nmax_connections = 3\n[limits]\nmemory = \"256Mi\"";
        let env = [("BALLAST_EDGE_SERVE__HTTP", "b:2"), ("BALLAST_EDGE_LIMITS__DISK", "1Gi"), ("PATH", "/bin")];
        let sets = ["serve.http=c:3", "cpu_features.deny=[\"avx2\"]", "facts.line=7b", "sync.wait_seconds=\"9\""];
        assert!(load(text, &env, &sets).is_err(), "a text is no number");
        let config = load(text, &env, &sets[..3]).unwrap();
        assert_eq!((config.serve.http.as_str(), config.serve.max_connections), ("c:3", 3));
        assert_eq!((config.limits.memory.0, config.limits.disk.0), (256 << 20, 1 << 30));
        assert_eq!(config.cpu_features.deny, ["avx2"]);
        assert_eq!(config.facts["line"], "7b");
    }

    #[test]
    fn what_is_a_text_stays_one() {
        let sets = ["facts.line=7", "name=42", "facts.on=true", "facts.q=\"a b\"", "cpu_features.deny=avx2, fma"];
        let config = load("", &[("BALLAST_EDGE_FACTS__SHIFT", "1.5")], &sets).unwrap();
        assert_eq!(config.name.as_deref(), Some("42"));
        let facts: Vec<_> = config.facts.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(facts, [("line", "7"), ("on", "true"), ("q", "a b"), ("shift", "1.5")]);
        assert_eq!(config.cpu_features.deny, ["avx2", "fma"]);
        assert!(load("", &[], &["cpu_features.deny="]).unwrap().cpu_features.deny.is_empty());
    }

    #[test]
    fn unknown_keys_and_wrong_values_name_their_place() {
        for (text, env, sets, says) in [
            ("[serve]\nhtpp = \"x\"", &[][..], &[][..], "\"serve.htpp\""),
            ("[serve]\nhtpp = \"x\"", &[], &[], "did you mean \"serve.http\"?"),
            ("[server]\nhttp = \"x\"", &[], &[], "did you mean \"serve.http\"?"),
            ("memory = 1", &[], &[], "did you mean \"limits.memory\"?"),
            ("", &[], &["colour=red"], "does not know; the keys are"),
            ("", &[], &["facts=7"], "wrong value"),
            ("", &[("BALLAST_EDGE_SERVE__HTPP", "x")], &[], "BALLAST_EDGE_SERVE__HTPP"),
            ("", &[], &["limits.memroy=1"], "limits.memroy"),
            ("", &[], &["limits.memory=lots"], "256Mi"),
            ("", &[], &["engine=fast"], "expected `native` or `interpreter`"),
            ("", &[], &["serve.http"], "KEY=VALUE"),
            ("serve = ", &[], &[], "not valid TOML"),
            ("[serve]\nmax_connections = \"x\"", &[], &[], "wrong value"),
        ] {
            let error = load(text, env, sets).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let missing = Config::load(Some(Path::new("/no/such/edge.toml")), [], &[]).unwrap_err().to_string();
        assert!(missing.contains("/no/such/edge.toml"), "{missing}");
    }

    #[test]
    fn every_key_is_documented_and_every_documented_key_exists() {
        let mut config = Config { name: Some("x".to_owned()), ..Config::default() };
        config.facts.clear();
        let path = || Some(PathBuf::from("x"));
        let Serve { unix, token_file, certificate, key, client_ca, .. } = &mut config.serve;
        [unix, token_file, certificate, key, client_ca].into_iter().for_each(|optional| *optional = path());
        let mut found = Vec::new();
        flatten("", &toml::Table::try_from(&config).unwrap(), &mut found);
        found.sort();
        let mut documented: Vec<_> = KEYS.iter().map(|k| k.name.to_owned()).collect();
        documented.sort();
        assert_eq!(found, documented);
    }

    fn flatten(prefix: &str, table: &toml::Table, into: &mut Vec<String>) {
        for (name, value) in table {
            let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            match value {
                toml::Value::Table(inner) if name != "facts" => flatten(&name, inner, into),
                _ => into.push(name),
            }
        }
    }

    #[test]
    fn the_documentation_is_the_programs_own() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/edge-configuration.md");
        if std::env::var_os("BALLAST_UPDATE").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, documentation()).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(written, documentation(), "run the test with BALLAST_UPDATE=1 and commit {}", path.display());
    }
}
