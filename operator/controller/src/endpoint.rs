//! Where gateways reach the server, and which names its certificate carries.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// The public endpoint cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Nobody can connect to "any address".
    #[error("--listen {0} is every address; say with --public-endpoint https://HOST:PORT how gateways reach it")]
    Unspecified(SocketAddr),
    /// Malformed.
    #[error("--public-endpoint {0:?} is not of the form https://HOST:PORT")]
    Malformed(String),
}

/// An endpoint's URL and host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `https://host:port`.
    pub url: String,
    /// Names and addresses for the server's certificate.
    pub hosts: Vec<String>,
}

/// From the flags and the address that was bound.
pub fn resolve(public: Option<&str>, bound: SocketAddr) -> Result<Endpoint, EndpointError> {
    let url = match public {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None if bound.ip().is_unspecified() => return Err(EndpointError::Unspecified(bound)),
        None => format!("https://{bound}"),
    };
    let malformed = || EndpointError::Malformed(url.clone());
    let authority = url.strip_prefix("https://").ok_or_else(malformed)?;
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => host,
        Some((_, port)) if !port.ends_with(']') => return Err(malformed()),
        _ => authority,
    };
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let named = host.parse::<IpAddr>().is_ok()
        || (!host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.'));
    if !named {
        return Err(malformed());
    }
    let mut hosts = vec![host.to_owned(), "localhost".into(), "127.0.0.1".into(), "::1".into()];
    if !bound.ip().is_unspecified() {
        hosts.push(bound.ip().to_string());
    }
    hosts.sort();
    hosts.dedup();
    Ok(Endpoint { url, hosts })
}

/// The port of the last start, when a free one was asked for: gateways know the old endpoint.
pub fn last_port(file: &Path) -> Option<u16> {
    let url = std::fs::read_to_string(file).ok()?;
    url.trim().rsplit_once(':')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        let bound: SocketAddr = "127.0.0.1:8443".parse().unwrap();
        assert_eq!(resolve(None, bound).unwrap().url, "https://127.0.0.1:8443");
        let any: SocketAddr = "0.0.0.0:8443".parse().unwrap();
        assert_eq!(resolve(None, any), Err(EndpointError::Unspecified(any)));
        let named = resolve(Some("https://fleet.example:443/"), any).unwrap();
        assert_eq!(named.url, "https://fleet.example:443");
        assert!(named.hosts.contains(&"fleet.example".to_owned()));
        assert!(resolve(Some("https://[2001:db8::1]:8443"), any).unwrap().hosts.contains(&"2001:db8::1".to_owned()));
        for bad in ["http://x:1", "fleet.example", "https://", "https://a b:1", "https://x:port"] {
            assert!(resolve(Some(bad), bound).is_err(), "{bad}");
        }
    }
}
