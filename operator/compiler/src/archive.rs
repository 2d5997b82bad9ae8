//! A model whose tensors lie in other files, together with them: one archive (POSIX.1-1988 `ustar`), made here from files that
//! lie beside each other, or by the user with `tar`.
//!
//! A model travels as one piece of bytes with one digest; an archive is such a piece. Reading one takes nothing for granted: names
//! are checked, sizes bounded, and its parts are slices of what came in.

use std::collections::BTreeMap;

/// Most files beside the model.
pub const MAX_FILES: usize = 64;
/// Longest path: what one header holds.
pub const MAX_PATH_BYTES: usize = 100;
const BLOCK: usize = 512;

/// Why an archive, or a list of files, cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// A name that could lead elsewhere, or that no header holds.
    #[error(
        "the path {0:?} cannot be used: write a relative one of at most {MAX_PATH_BYTES} bytes without \"..\", as the model names the file"
    )]
    Path(String),
    /// More than are read.
    #[error(
        "there are more than {MAX_FILES} files beside the model; save its tensors in one file (onnx.save(..., save_as_external_data=True, all_tensors_to_one_file=True))"
    )]
    TooMany,
    /// One name for two files.
    #[error("the file {0:?} is there twice")]
    Twice(String),
    /// Not a whole archive of plain files.
    #[error(
        "the tar archive is damaged or of a kind that is not read at byte {0}; make it with `tar --format=ustar -cf model.tar model.onnx ...`"
    )]
    Damaged(usize),
    /// None, or several.
    #[error("the tar archive holds {0} files that end in .onnx; it must hold one")]
    Models(usize),
}

/// A model and the files that its tensors lie in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts<'a> {
    /// The ONNX file.
    pub model: &'a [u8],
    /// By their paths, relative to the model's.
    pub files: BTreeMap<String, &'a [u8]>,
}

/// A path as it may stand in a model: relative, `/` between its parts, none of them `.`, `..` or empty.
pub fn safe_path(path: &str) -> Result<&str, ArchiveError> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    let named = |c: char| !c.is_control() && c != '\\' && c != ':';
    if path.len() <= MAX_PATH_BYTES && path.split('/').all(plain) && path.chars().all(named) {
        Ok(path)
    } else {
        Err(ArchiveError::Path(path.to_owned()))
    }
}

/// The path as exporters write it: `./weights` is `weights`.
pub fn canonical(path: &str) -> &str {
    path.strip_prefix("./").unwrap_or(path)
}

/// The files that a model's tensors lie in, as it names them. Empty where the bytes are no model: reading it says why.
pub fn named(model: &[u8]) -> std::collections::BTreeSet<String> {
    fn of(graph: &crate::onnx::Graph<'_>, into: &mut std::collections::BTreeSet<String>) {
        let external = graph.initializers.iter().filter_map(|t| t.external.as_ref());
        into.extend(external.map(|e| canonical(&e.location).to_owned()));
        for node in &graph.nodes {
            node.attributes.iter().filter_map(|a| a.graph.as_ref()).for_each(|graph| of(graph, into));
        }
    }
    let mut names = std::collections::BTreeSet::new();
    if let Ok(model) = crate::onnx::parse(model) {
        of(&model.graph, &mut names);
    }
    names
}

/// One piece of a model and the files beside it; the same bytes for the same parts. Without files it is the model as it is.
pub fn pack(model: Vec<u8>, files: &BTreeMap<String, Vec<u8>>) -> Result<Vec<u8>, ArchiveError> {
    if files.is_empty() {
        return Ok(model);
    }
    if files.len() > MAX_FILES {
        return Err(ArchiveError::TooMany);
    }
    let mut out =
        Vec::with_capacity(model.len() + files.values().map(|f| f.len() + 2 * BLOCK).sum::<usize>() + 4 * BLOCK);
    let mut name = "model.onnx".to_owned();
    while files.contains_key(&name) {
        name.insert(0, '_');
    }
    entry(&mut out, &name, &model);
    for (path, content) in files {
        if path.ends_with(".onnx") {
            return Err(ArchiveError::Path(path.clone()));
        }
        entry(&mut out, safe_path(path)?, content);
    }
    out.resize(out.len() + 2 * BLOCK, 0);
    Ok(out)
}

fn entry(out: &mut Vec<u8>, name: &str, content: &[u8]) {
    let mut header = [0u8; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", content.len()).as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(content);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
}

/// Whether these bytes begin like an archive and not like an ONNX file, whose first byte is the tag of its IR version.
fn is_archive(bytes: &[u8]) -> bool {
    bytes.first() != Some(&0x08) && bytes.get(257..262) == Some(b"ustar")
}

/// The parts of a piece: an archive, or an ONNX file alone.
pub fn unpack(bytes: &[u8]) -> Result<Parts<'_>, ArchiveError> {
    if !is_archive(bytes) {
        return Ok(Parts { model: bytes, files: BTreeMap::new() });
    }
    let mut models = Vec::new();
    let mut files = BTreeMap::new();
    let mut at = 0;
    while let Some(header) = bytes.get(at..at + BLOCK) {
        if header.iter().all(|b| *b == 0) {
            break;
        }
        let damaged = ArchiveError::Damaged(at);
        if header.get(257..262) != Some(b"ustar") {
            return Err(damaged);
        }
        let size = octal(&header[124..136]).ok_or_else(|| damaged.clone())?;
        let start = at + BLOCK;
        let content = start.checked_add(size).and_then(|end| bytes.get(start..end)).ok_or_else(|| damaged.clone())?;
        at = start + size.next_multiple_of(BLOCK);
        match header[156] {
            b'0' | 0 => {}
            // Directories say nothing; neither do notes on times and owners, but a note may hold a name that is too long.
            b'5' => continue,
            b'x' | b'g' if !content.windows(6).any(|w| w == b" path=" || w == b" size=") => continue,
            _ => return Err(damaged),
        }
        let text = |range: std::ops::Range<usize>| {
            let field = header[range].split(|b| *b == 0).next().unwrap_or_default();
            str::from_utf8(field).map(str::to_owned).map_err(|_| damaged.clone())
        };
        let (name, prefix) = (text(0..100)?, text(345..500)?);
        let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        let path = safe_path(canonical(&path))?.to_owned();
        if path.ends_with(".onnx") {
            models.push((path, content));
        } else if files.insert(path.clone(), content).is_some() {
            return Err(ArchiveError::Twice(path));
        }
        if files.len() > MAX_FILES {
            return Err(ArchiveError::TooMany);
        }
    }
    let [(path, model)] = &models[..] else { return Err(ArchiveError::Models(models.len())) };
    // Names are relative to the model's place.
    let folder = path.rsplit_once('/').map_or_else(String::new, |(folder, _)| format!("{folder}/"));
    let files = files.into_iter().filter_map(|(p, c)| p.strip_prefix(&folder).map(|p| (p.to_owned(), c))).collect();
    Ok(Parts { model, files })
}

/// A number as headers have it: octal digits between spaces and zeros.
fn octal(field: &[u8]) -> Option<usize> {
    let text = str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    usize::from_str_radix(text, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str]) -> BTreeMap<String, Vec<u8>> {
        names.iter().map(|n| ((*n).to_owned(), n.repeat(700).into_bytes())).collect()
    }

    #[test]
    fn what_is_packed_comes_out_again() {
        let files = files(&["weights", "deep/er/weights.bin"]);
        let packed = pack(vec![8, 7, 1], &files).expect("safe names");
        let parts = unpack(&packed).expect("an archive");
        assert_eq!(parts.model, [8, 7, 1]);
        let found: BTreeMap<String, Vec<u8>> = parts.files.iter().map(|(p, c)| (p.clone(), c.to_vec())).collect();
        assert_eq!(found, files);
        assert_eq!(pack(vec![8, 7, 1], &files).expect("again"), packed);
    }

    #[test]
    fn a_model_alone_stays_as_it_is() {
        assert_eq!(pack(vec![8, 7], &BTreeMap::new()), Ok(vec![8, 7]));
        assert_eq!(unpack(&[8, 7]).expect("a model").model, [8, 7]);
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for path in ["/etc/passwd", "../w", "a/../../w", "a//b", "", ".", "a\\b", "C:w", "a\0b", &"x".repeat(101)] {
            assert_eq!(safe_path(path), Err(ArchiveError::Path(path.to_owned())));
        }
        assert_eq!(safe_path("a/b.data"), Ok("a/b.data"));
    }

    #[test]
    fn no_cut_or_changed_archive_panics_or_reads_beyond_its_end() {
        let packed = pack(vec![8; 600], &files(&["weights"])).expect("safe names");
        for end in 0..packed.len() {
            let _ = unpack(&packed[..end]);
        }
        for at in 0..2 * BLOCK {
            for value in [0, b'7', 0xff] {
                let mut changed = packed.clone();
                changed[at] = value;
                let _ = unpack(&changed);
            }
        }
    }

    #[test]
    fn an_archive_needs_one_model() {
        let mut out = Vec::new();
        entry(&mut out, "a.onnx", &[8]);
        entry(&mut out, "b.onnx", &[8]);
        assert_eq!(unpack(&out), Err(ArchiveError::Models(2)));
        let mut out = Vec::new();
        entry(&mut out, "weights", &[1]);
        assert_eq!(unpack(&out), Err(ArchiveError::Models(0)));
    }

    #[test]
    fn files_are_relative_to_the_models_folder() {
        let mut out = Vec::new();
        entry(&mut out, "./net/model.onnx", &[8]);
        entry(&mut out, "net/weights", &[1]);
        entry(&mut out, "elsewhere", &[2]);
        let parts = unpack(&out).expect("an archive");
        assert_eq!(parts.files.keys().collect::<Vec<_>>(), ["weights"]);
    }
}
