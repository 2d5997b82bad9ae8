//! Every key that there is: how it is written, what it means, and the page made from that.

/// How a value is written in the environment and after `--set`, where nothing but text is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text as it stands: `7` is a text, too.
    Text,
    /// A whole number.
    Number,
    /// A whole number, or a text such as `256Mi`.
    Size,
    /// Names between commas, or a list as in TOML.
    Names,
    /// Texts by name; each is a key of its own.
    Table,
}

/// One documented key.
#[derive(Debug)]
pub struct Key {
    /// Dotted path.
    pub name: &'static str,
    /// How its value is read.
    pub kind: Kind,
    /// The form of its value, for people.
    pub form: &'static str,
    /// When it is not set.
    pub default: &'static str,
    /// What it does.
    pub meaning: &'static str,
}

const fn key(
    name: &'static str,
    (kind, form): (Kind, &'static str),
    default: &'static str,
    meaning: &'static str,
) -> Key {
    Key { name, kind, form, default, meaning }
}

const PATH: (Kind, &str) = (Kind::Text, "path");
const TEXT: (Kind, &str) = (Kind::Text, "text");
const ADDRESS: (Kind, &str) = (Kind::Text, "address:port");
const BYTES: (Kind, &str) = (Kind::Number, "bytes");
const NUMBER: (Kind, &str) = (Kind::Number, "number");
const SECONDS: (Kind, &str) = (Kind::Number, "seconds");
const SIZE: (Kind, &str) = (Kind::Size, "size");
const NAMES: (Kind, &str) = (Kind::Names, "list of names");
const TEXTS: (Kind, &str) = (Kind::Table, "table of texts");

/// Every key there is. A test holds it against [`Config`](super::Config), and `docs/edge-configuration.md` against it.
pub const KEYS: &[Key] = &[
    key("state", PATH, "`/var/lib/ballast`", "Directory for identity, slots and blobs. One process at a time uses it."),
    key("name", TEXT, "the host name", "A name for people, sent when the gateway enrols."),
    key(
        "engine",
        (Kind::Text, "`native` or `interpreter`"),
        "`native`",
        "`interpreter` lets no native code in: models run in Wasmtime's interpreter, about a hundred times slower, and the gateway is of the target `pulley64` (`pulley32` where pointers have 32 bits). For systems that forbid executable mappings, and to try that target out.",
    ),
    key(
        "serve.http",
        ADDRESS,
        "`127.0.0.1:8000`",
        "Where the Open Inference Protocol and `/metrics` are served. Port 0 takes any free one; the address in use stands in `STATE/http`. An address that other machines can reach needs `serve.token_file` or `serve.client_ca`.",
    ),
    key(
        "serve.unix",
        PATH,
        "none",
        "A socket that serves the same to programs of this machine whose user or group is that of the gateway (mode 0660); no token is asked for there.",
    ),
    key(
        "serve.token_file",
        PATH,
        "none",
        "Clients must send `Authorization: Bearer TOKEN` with one of the tokens in this file: one a line, 16 characters at least, mode 0600. Read again when it changes: write the new token below the old one, change the clients, remove the old one.",
    ),
    key(
        "serve.certificate",
        PATH,
        "none",
        "PEM: the chain that the gateway presents to clients, its own certificate first. With it TLS is spoken, and nothing else.",
    ),
    key("serve.key", PATH, "none", "PEM: the private key of `serve.certificate`."),
    key("serve.client_ca", PATH, "none", "PEM: clients must present a certificate that one of these signed."),
    key("serve.max_request_bytes", BYTES, "16777216", "Larger requests are refused with 413."),
    key("serve.max_connections", NUMBER, "256", "More clients of one listener at once wait to be accepted."),
    key("serve.body_seconds", SECONDS, "30", "A request's body arrives within so long, or its client is told 408."),
    key("serve.drain_seconds", SECONDS, "30", "After SIGTERM, requests in flight have so long to end."),
    key("fetch.retry_seconds", SECONDS, "5", "Pause before a download that was cut off goes on from where it stopped."),
    key(
        "limits.memory",
        SIZE,
        "half of the machine's memory (or of its cgroup)",
        "All instances of all models together, the candidate and the warm spares included. A release that does not fit is deferred.",
    ),
    key(
        "limits.disk",
        SIZE,
        "half of what is free",
        "The store of downloaded blobs. Blobs of releases in a slot are never deleted.",
    ),
    key(
        "cpu_features.deny",
        NAMES,
        "none",
        "CPU features to behave without, by Rust's names: `[\"avx2\"]` makes the operator choose a target that needs none.",
    ),
    key(
        "privacy",
        (Kind::Text, "`LocalOnly` or `Any`"),
        "`LocalOnly`",
        "What may leave this gateway, whatever a deployment asks for: nothing that was made from an input, or inputs as they are. A deployment whose unsure answers the cloud is asked for needs `Any` here and in its own `spec.escalation`.",
    ),
    key("facts", TEXTS, "empty", "Reported to the operator, for `match.facts` of a HardwareTarget."),
    key("sync.wait_seconds", SECONDS, "60", "Pause between syncs as long as the operator has not yet said its own."),
    key(
        "sync.max_backoff_seconds",
        SECONDS,
        "300",
        "Longest pause between attempts while the operator cannot be reached.",
    ),
];

/// How the value of a key is read; `None`: there is no such key.
pub(super) fn kind(name: &str) -> Option<Kind> {
    let fact = || name.strip_prefix("facts.").filter(|fact| !fact.is_empty()).map(|_| Kind::Text);
    KEYS.iter().find(|k| k.name == name).map(|k| k.kind).or_else(fact)
}

/// The key that was probably meant: few letters apart, or the same word in another table.
pub(super) fn nearest(key: &str) -> Option<&'static str> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let apart = |name: &str| distance(key, name).min(distance(&last(key), &last(name)).saturating_add(1));
    let near = KEYS.iter().map(|k| (apart(k.name), k.name)).min_by_key(|(apart, _)| *apart);
    near.filter(|(apart, name)| *apart <= name.len().div_ceil(4)).map(|(_, name)| name)
}

/// Letters to insert, remove or replace (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(100).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (n, x) in a.chars().take(100).enumerate() {
        let mut next = vec![n.saturating_add(1)];
        for ((y, pair), left) in b.iter().zip(row.windows(2)).zip(0..) {
            let (above_left, above) = (pair.first().copied().unwrap_or(0), pair.last().copied().unwrap_or(0));
            let before = next.get::<usize>(left).copied().unwrap_or(0);
            let replaced = above_left.saturating_add(usize::from(x != *y));
            next.push(replaced.min(above.saturating_add(1)).min(before.saturating_add(1)));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

/// `docs/edge-configuration.md`.
pub fn documentation() -> String {
    let mut out = String::from(
        "# Configuration of ballast-edge\n\n\
         `ballast-edge run --config FILE` reads TOML; without `--config` it reads `/etc/ballast/edge.toml` where there is one.\n\
         Environment variables come over the file (`BALLAST_EDGE_` and the key in capitals, `__` for a dot:\n\
         `BALLAST_EDGE_SERVE__HTTP=127.0.0.1:8080`), `--set KEY=VALUE` over both, and `--state` and `--http` over all. In the\n\
         environment and after `--set`, texts need no quotes and a list is names between commas\n\
         (`--set cpu_features.deny=avx2,fma`, `--set facts.line=7`). A key that is not listed here is refused.\n\
         Sizes are numbers of bytes or texts such as `\"256Mi\"` and `\"1Gi\"`.\n\n\
         This page is made from the program; a test keeps it true.\n\n\
         | key | value | default | meaning |\n|---|---|---|---|\n",
    );
    for key in KEYS {
        out.push_str(&format!("| `{}` | {} | {} | {} |\n", key.name, key.form, key.default, key.meaning));
    }
    out.push_str(
        "\n```toml\n# A small box on a production line.\nstate = \"/var/lib/ballast\"\n\n[serve]\nhttp = \"0.0.0.0:8000\"\n\
         token_file = \"/etc/ballast/tokens\"\n\n\
         [limits]\nmemory = \"512Mi\"\ndisk = \"2Gi\"\n\n[cpu_features]\ndeny = [\"avx512f\"]\n\n[facts]\nline = \"bottling\"\n```\n",
    );
    out
}
