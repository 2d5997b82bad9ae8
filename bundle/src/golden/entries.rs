//! One file with vectors for every shape of a model: those of entry n > 0 are named `entryN/inputs/…` and `entryN/outputs/…`.

use std::collections::BTreeMap;

use super::safetensors::{Header, headers, write_headers};
use super::{Golden, GoldenError, MAX_GOLDEN_BYTES};
use crate::Contract;

/// The entry that a tensor belongs to, and its name there; a name without one is of entry 0.
fn place(name: &str, entries: usize) -> (usize, &str) {
    let named = name.strip_prefix("entry").and_then(|rest| rest.split_once('/'));
    let found = named.and_then(|(n, rest)| Some((n.parse::<usize>().ok()?, rest, n)));
    match found {
        // Written in one way only, so that no two names are one.
        Some((n, rest, text)) if (1..entries).contains(&n) && n.to_string() == text => (n, rest),
        _ => (0, name),
    }
}

/// The file's parts, one golden file for each of the contract's entries.
fn split(bytes: &[u8], entries: usize) -> Result<Vec<Vec<u8>>, GoldenError> {
    if bytes.len() > MAX_GOLDEN_BYTES {
        return Err(GoldenError::TooLarge { found: bytes.len() });
    }
    let (headers, start) = headers(bytes)?;
    let data = bytes.get(start..).unwrap_or_default();
    let mut tensors: Vec<(&String, &Header)> = headers.iter().collect();
    tensors.sort_by_key(|(_, header)| header.data_offsets);
    let mut parts: Vec<(BTreeMap<String, Header>, Vec<u8>)> = (0..entries).map(|_| Default::default()).collect();
    for (name, header) in tensors {
        let (n, name) = place(name, entries);
        let Some((headers, part)) = parts.get_mut(n) else { continue };
        let [from, to] = header.data_offsets;
        let bytes = data.get(from..to).ok_or(GoldenError::NotSafetensors("a tensor lies outside the file"))?;
        let offsets = [part.len(), part.len().saturating_add(bytes.len())];
        headers.insert(name.to_owned(), Header { data_offsets: offsets, ..header.clone() });
        part.extend_from_slice(bytes);
    }
    Ok(parts.iter().map(|(headers, data)| write_headers(headers, &[data])).collect())
}

/// One file of the golden files of entries 0, 1, …; itself where there is one.
pub fn join(parts: &[Vec<u8>]) -> Result<Vec<u8>, GoldenError> {
    if let [only] = parts {
        return Ok(only.clone());
    }
    let (mut all, mut data, mut end) = (BTreeMap::new(), Vec::new(), 0usize);
    for (n, part) in parts.iter().enumerate() {
        let (headers, start) = headers(part)?;
        for (name, header) in headers {
            let name = if n == 0 { name } else { format!("entry{n}/{name}") };
            let offsets = header.data_offsets.map(|at| at.saturating_add(end));
            all.insert(name, Header { data_offsets: offsets, ..header });
        }
        let own = part.get(start..).unwrap_or_default();
        end = end.saturating_add(own.len());
        data.push(own);
    }
    let bytes = write_headers(&all, &data);
    if bytes.len() > MAX_GOLDEN_BYTES { Err(GoldenError::TooLarge { found: bytes.len() }) } else { Ok(bytes) }
}

impl Golden {
    /// Reads the golden layer of a bundle: a file for each of the contract's entries ([`Contract::of_entry`]).
    pub fn of_entries(bytes: &[u8], contract: &Contract) -> Result<Vec<Self>, GoldenError> {
        let entries = contract.entries();
        if entries == 1 {
            return Ok(vec![Self::of_bundle(bytes, contract)?]);
        }
        let parts = split(bytes, entries)?;
        let each = parts.iter().enumerate();
        each.map(|(n, part)| Self::of_bundle(part, &contract.of_entry(n))).collect()
    }

    /// The part of a bundle's golden layer that is entry 0's: what the user's file became.
    pub fn first_part(bytes: &[u8], contract: &Contract) -> Result<Vec<u8>, GoldenError> {
        let mut parts = if contract.entries() == 1 { vec![bytes.to_vec()] } else { split(bytes, contract.entries())? };
        Ok(if parts.is_empty() { Vec::new() } else { parts.swap_remove(0) })
    }
}
