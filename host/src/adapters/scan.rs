//! What lies in the adapter directories, judged by names and file times alone.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    AdapterError, BaseIdentity,
    directory::{CONFIG, WEIGHTS},
};
use crate::checkpoint::FileError;

/// Longest name of an adapter, bytes.
const MAX_NAME: usize = 200;
/// Most entries of a directory that are looked at.
const MAX_ENTRIES: usize = 100_000;
/// Names that requests and responses give a meaning of their own.
const RESERVED: [&str; 2] = ["auto", "base"];

/// When a directory's two files were last written, how long they are and which files they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp([(Option<SystemTime>, u64, u64); 2]);

impl Stamp {
    /// Bytes of a stamp in a file.
    pub(super) const BYTES: usize = 2 * (8 + 4 + 8 + 8);

    /// For files; `None` where the system tells no times, so that nothing could be recognised.
    pub(super) fn to_bytes(&self) -> Option<[u8; Self::BYTES]> {
        let mut bytes = Vec::new();
        for (modified, len, inode) in self.0 {
            let modified = modified?.duration_since(UNIX_EPOCH).ok()?;
            bytes.extend(modified.as_secs().to_le_bytes());
            bytes.extend(modified.subsec_nanos().to_le_bytes());
            bytes.extend(len.to_le_bytes());
            bytes.extend(inode.to_le_bytes());
        }
        bytes.try_into().ok()
    }
}

/// A directory that is, or is about to be, an adapter.
pub(super) struct Candidate {
    pub(super) path: PathBuf,
    /// `None` while a file is missing.
    pub(super) stamp: Option<Stamp>,
}

/// Everything found.
#[derive(Default)]
pub(super) struct Scan {
    pub(super) candidates: BTreeMap<String, Candidate>,
    /// Configured directories that could not be listed.
    pub(super) unreadable: Vec<PathBuf>,
    /// With the place that each is about.
    pub(super) problems: Vec<(PathBuf, AdapterError)>,
}

/// Looks at every directory; the first of a name counts.
pub(super) fn scan(dirs: &[PathBuf], base: &BaseIdentity) -> Scan {
    let mut scan = Scan::default();
    for dir in dirs {
        if dir.join(CONFIG).exists() {
            scan.add(dir, base);
            continue;
        }
        match children(dir) {
            Ok(children) => children.iter().for_each(|child| scan.add(child, base)),
            Err(error) => {
                scan.unreadable.push(dir.clone());
                scan.problems.push((dir.clone(), FileError::io(dir)(error).into()));
            }
        }
    }
    scan
}

/// The files' stamps, if both are there.
pub(super) fn stamp(dir: &Path) -> Option<Stamp> {
    let of = |name: &str| {
        let file = fs::metadata(dir.join(name)).ok().filter(fs::Metadata::is_file)?;
        Some((file.modified().ok(), file.len(), file.ino()))
    };
    Some(Stamp([of(CONFIG)?, of(WEIGHTS)?]))
}

/// Subdirectories in order, without hidden ones: those are being written.
fn children(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut children = Vec::new();
    for entry in fs::read_dir(dir)?.take(MAX_ENTRIES) {
        let entry = entry?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !hidden && entry.path().is_dir() {
            children.push(entry.path());
        }
    }
    children.sort();
    Ok(children)
}

impl Scan {
    fn add(&mut self, path: &Path, base: &BaseIdentity) {
        let stamp = stamp(path);
        let started = [CONFIG, WEIGHTS, "adapter_model.bin"].map(|name| path.join(name).exists());
        if !started.contains(&true) {
            return;
        }
        let name = match name(path, base) {
            Ok(name) => name,
            Err(reason) => return self.refuse(path, reason),
        };
        if let Some(first) = self.candidates.get(&name) {
            let reason = format!("{} has the same name and comes first", first.path.display());
            return self.refuse(path, reason);
        }
        if let [true, false, true] = started {
            let path = path.join("adapter_model.bin");
            self.problems.push((path.clone(), AdapterError::Pickled { path }));
        }
        self.candidates.insert(name, Candidate { path: path.to_owned(), stamp });
    }

    fn refuse(&mut self, path: &Path, reason: String) {
        let path = path.to_owned();
        self.problems.push((path.clone(), AdapterError::Name { path, reason }));
    }
}

/// The name of an adapter in `path`, fit for the `model` field and for comma-separated lists.
fn name(path: &Path, base: &BaseIdentity) -> Result<String, String> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or("its name is not valid UTF-8")?;
    if name.contains([',', '/', '\\']) || name.contains("..") || name.chars().any(char::is_control)
    {
        return Err("a name must not hold a comma, a slash, `..` or a control character".into());
    }
    if name.trim() != name || name.is_empty() || name.len() > MAX_NAME {
        return Err(format!("a name has 1 to {MAX_NAME} bytes and no blanks at its ends"));
    }
    if RESERVED.contains(&name) {
        return Err(format!("`{name}` has another meaning in requests"));
    }
    if base.id == name || base.aliases.iter().any(|alias| alias == name) {
        return Err(format!("`{name}` already names the base"));
    }
    Ok(name.to_owned())
}
