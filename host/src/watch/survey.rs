//! What a set of paths leads to, at one moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, Metadata},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::nearest_directory;

/// A watched directory, the directories in it, and their files.
const DEPTH: usize = 3;

/// Beyond it changes go unnoticed; a directory of adapters has a few files each.
const MAX_ENTRIES: usize = 65_536;

/// Symbolic links followed for one path.
const MAX_LINKS: usize = 16;

/// What tells one state of a file from another: device, inode, size, and time of change.
type Stamp = (u64, u64, u64, i64, i64);

/// What was found. Two equal surveys mean that nothing changed between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Survey {
    stamps: BTreeMap<PathBuf, Stamp>,
    /// Where changes to any of it would show: the parent of every path and of every symbolic
    /// link on its way, and all directories found.
    pub(super) directories: BTreeSet<PathBuf>,
}

impl Survey {
    /// Looks at every path, following symbolic links, and into directories.
    pub(super) fn take(paths: &[PathBuf]) -> Self {
        let mut survey = Self::default();
        for path in paths {
            survey.add_way(path);
            survey.add(path, DEPTH);
        }
        survey
    }

    /// The directories in which the path and the links it leads through are named.
    fn add_way(&mut self, path: &Path) {
        let mut way = path.to_path_buf();
        for _ in 0..MAX_LINKS {
            self.directories.extend(nearest_directory(&way));
            let Some((link, target)) = first_link(&way) else { return };
            let rest = way.strip_prefix(&link).map(Path::to_path_buf).unwrap_or_default();
            self.directories.extend(nearest_directory(&link));
            let from = link.parent().unwrap_or(Path::new(""));
            way = from.join(target);
            if !rest.as_os_str().is_empty() {
                way.push(rest);
            }
        }
    }

    fn add(&mut self, path: &Path, depth: usize) {
        let Ok(metadata) = fs::metadata(path) else { return };
        if self.stamps.len() >= MAX_ENTRIES {
            return;
        }
        if !metadata.is_dir() {
            self.stamps.insert(path.to_path_buf(), stamp(&metadata));
            return;
        }
        // A directory's own times change with files that are none of ours.
        let (device, inode) = (metadata.dev(), metadata.ino());
        self.stamps.insert(path.to_path_buf(), (device, inode, 0, 0, 0));
        self.directories.insert(path.to_path_buf());
        if depth == 0 {
            return;
        }
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            self.add(&entry.path(), depth - 1);
        }
    }
}

/// Contents and attributes alike: a replaced file may keep its size and its time of modification.
fn stamp(metadata: &Metadata) -> Stamp {
    let (seconds, nanoseconds) = (metadata.ctime(), metadata.ctime_nsec());
    (metadata.dev(), metadata.ino(), metadata.size(), seconds, nanoseconds)
}

/// The outermost symbolic link on a path's way, and what it points to.
fn first_link(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let mut ways: Vec<_> = path.ancestors().filter(|way| !way.as_os_str().is_empty()).collect();
    ways.reverse();
    ways.into_iter().find_map(|way| Some((way.to_path_buf(), fs::read_link(way).ok()?)))
}
