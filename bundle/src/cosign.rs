//! Private keys as `cosign generate-key-pair` writes them: PKCS#8 in a NaCl secretbox under a scrypt key.
//!
//! Format: PEM around JSON, from github.com/secure-systems-lab/go-securesystemslib `encrypted`. Gateways sign nothing, so
//! this is behind the feature `cosign-keys`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use poly1305::Poly1305;
use poly1305::universal_hash::KeyInit as _;
use salsa20::XSalsa20;
use salsa20::cipher::{KeyIvInit as _, StreamCipher as _};
use serde::Deserialize;

use crate::{KeyError, SigningKey};

const LABELS: [&str; 2] = ["ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY"];
const MAX_PEM_BYTES: usize = 16 << 10;
/// scrypt takes `128 · N · r` bytes: 256 MiB. cosign writes N = 2¹⁶ and r = 8, 64 MiB.
const MAX_N_TIMES_R: u64 = 1 << 21;
const MAX_P: u32 = 16;
const TAG: usize = 16;

#[derive(Deserialize)]
struct Encrypted {
    kdf: Kdf,
    cipher: Cipher,
    ciphertext: String,
}

#[derive(Deserialize)]
struct Kdf {
    name: String,
    params: Params,
    salt: String,
}

#[derive(Deserialize)]
struct Params {
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
}

#[derive(Deserialize)]
struct Cipher {
    name: String,
    nonce: String,
}

impl SigningKey {
    /// A key that cosign wrote; `password` is what it was given (`COSIGN_PASSWORD`), often empty. Takes about 0.2 s and
    /// 64 MiB, which is the point of scrypt.
    pub fn from_cosign_pem(pem: &str, password: &[u8]) -> Result<Self, KeyError> {
        let encrypted: Encrypted = serde_json::from_slice(&armoured(pem)?).map_err(|_| KeyError::CosignPem)?;
        if encrypted.kdf.name != "scrypt" || encrypted.cipher.name != "nacl/secretbox" {
            return Err(KeyError::CosignPem);
        }
        let field = |text: &str| STANDARD.decode(text).map_err(|_| KeyError::CosignPem);
        let key = derive(&encrypted.kdf.params, &field(&encrypted.kdf.salt)?, password)?;
        let nonce: [u8; 24] = field(&encrypted.cipher.nonce)?.try_into().map_err(|_| KeyError::CosignPem)?;
        let der = open(&key, &nonce, &field(&encrypted.ciphertext)?).ok_or(KeyError::Password)?;
        Self::from_der(&der)
    }
}

impl SigningKey {
    /// A private key in either form that an administrator may bring: PEM (PKCS#8 or SEC1), which needs no `password`, or
    /// cosign's.
    pub fn from_pem_or_cosign(pem: &str, password: &[u8]) -> Result<Self, KeyError> {
        if LABELS.iter().any(|label| pem.contains(label)) {
            Self::from_cosign_pem(pem, password)
        } else {
            Self::from_pem(pem)
        }
    }
}

/// What stands between the BEGIN and END lines.
fn armoured(pem: &str) -> Result<Vec<u8>, KeyError> {
    if pem.len() > MAX_PEM_BYTES {
        return Err(KeyError::CosignPem);
    }
    let body = LABELS.iter().find_map(|label| {
        let (_, rest) = pem.split_once(&format!("-----BEGIN {label}-----"))?;
        rest.split_once(&format!("-----END {label}-----")).map(|(body, _)| body)
    });
    let base64: String = body.ok_or(KeyError::CosignPem)?.split_whitespace().collect();
    STANDARD.decode(base64).map_err(|_| KeyError::CosignPem)
}

fn derive(params: &Params, salt: &[u8], password: &[u8]) -> Result<[u8; 32], KeyError> {
    let bounded = params.n.is_power_of_two()
        && params.n.checked_mul(params.r.into()).is_some_and(|work| work <= MAX_N_TIMES_R)
        && params.p <= MAX_P;
    if !bounded {
        return Err(KeyError::CosignWork);
    }
    let log_n = u8::try_from(params.n.ilog2()).map_err(|_| KeyError::CosignWork)?;
    let params = scrypt::Params::new(log_n, params.r, params.p).map_err(|_| KeyError::CosignWork)?;
    let mut key = [0; 32];
    scrypt::scrypt(password, salt, &params, &mut key).map_err(|_| KeyError::CosignWork)?;
    Ok(key)
}

/// `crypto_secretbox_open`: XSalsa20 whose first 32 bytes of key stream are the Poly1305 key (NaCl, "Cryptography in
/// NaCl", §9–10); the tag comes first.
fn open(key: &[u8; 32], nonce: &[u8; 24], sealed: &[u8]) -> Option<Vec<u8>> {
    let (tag, ciphertext) = sealed.split_first_chunk::<TAG>()?;
    let mut cipher = XSalsa20::new(key.into(), nonce.into());
    let mut mac_key = [0; 32];
    cipher.apply_keystream(&mut mac_key);
    let found = Poly1305::new(&mac_key.into()).compute_unpadded(ciphertext);
    // Whoever tries passwords sees right or wrong either way; there is no partial answer to time.
    if found.as_slice() != tag {
        return None;
    }
    let mut plain = ciphertext.to_vec();
    cipher.apply_keystream(&mut plain);
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    // That it is cosign's box is shown by the fixtures in `tests/cosign/`; this shows that nothing else opens.
    #[test]
    fn a_box_opens_only_unchanged() {
        let key = [7; 32];
        let nonce = [9; 24];
        let mut cipher = XSalsa20::new(&key.into(), &nonce.into());
        let mut mac_key = [0; 32];
        cipher.apply_keystream(&mut mac_key);
        let mut text = b"attack at dawn".to_vec();
        cipher.apply_keystream(&mut text);
        let tag = Poly1305::new(&mac_key.into()).compute_unpadded(&text);
        let mut sealed = [tag.as_slice(), &text].concat();
        assert_eq!(open(&key, &nonce, &sealed).as_deref(), Some(&b"attack at dawn"[..]));
        for i in 0..sealed.len() {
            sealed[i] ^= 1;
            assert_eq!(open(&key, &nonce, &sealed), None, "byte {i}");
            sealed[i] ^= 1;
        }
        assert_eq!(open(&key, &nonce, &sealed[..TAG - 1]), None);
    }

    #[test]
    fn a_key_that_asks_for_a_gibibyte_is_refused_before_it_is_taken() {
        let asks = |n: u64, r: u32, p: u32| {
            let json = format!(
                r#"{{"kdf":{{"name":"scrypt","params":{{"N":{n},"r":{r},"p":{p}}},"salt":""}},"cipher":{{"name":"nacl/secretbox","nonce":""}},"ciphertext":""}}"#
            );
            let pem = format!("-----BEGIN {0}-----\n{1}\n-----END {0}-----\n", LABELS[0], STANDARD.encode(json));
            SigningKey::from_cosign_pem(&pem, b"").unwrap_err()
        };
        for (n, r, p) in
            [(1 << 20, 8, 1), (1 << 40, 8, 1), (u64::MAX, 1, 1), (1 << 10, 8, 1000), (1000, 8, 1), (0, 8, 1)]
        {
            assert!(matches!(asks(n, r, p), KeyError::CosignWork), "{n} {r} {p}");
        }
        assert!(matches!(asks(2, 1, 1), KeyError::CosignPem), "an empty nonce");
    }
}
