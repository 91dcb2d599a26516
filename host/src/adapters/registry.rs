//! Which adapters there are now, kept in step with directories.
//!
//! [`Registry::refresh`] looks at the directories and publishes an immutable [`Catalogue`]. A
//! directory whose files have not changed is not read again; one that changed for the worse keeps
//! the generation it had. Invariant *lease pins*: whoever holds an [`AdapterLease`] means the same
//! weights to the end, whatever happens to the directory.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::SystemTime,
};

use super::{AdapterContent, AdapterError, AdapterOptions, AdapterStore, receipt::Receipt, scan};
use crate::model::AdapterId;

/// One adapter as it was at one time.
pub struct AdapterGeneration {
    /// The directory's name.
    pub name: String,
    /// What it holds.
    pub content: Arc<AdapterContent>,
    /// Counts the contents that the name has stood for, from 1.
    pub number: u64,
    /// When it was registered.
    pub created: SystemTime,
    /// The directory.
    pub path: PathBuf,
    /// The operator's facts for routers.
    pub tags: Vec<(String, String)>,
}

/// Keeps a generation usable.
pub type AdapterLease = Arc<AdapterGeneration>;

/// The adapters there are at one time, by name.
#[derive(Clone, Default)]
pub struct Catalogue {
    /// Counts changes, from 0 for the empty catalogue.
    pub generation: u64,
    adapters: BTreeMap<String, AdapterLease>,
}

impl Catalogue {
    /// The current generation of an adapter.
    pub fn get(&self, name: &str) -> Option<AdapterLease> {
        self.adapters.get(name).cloned()
    }

    /// All of them in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &AdapterLease> {
        self.adapters.values()
    }
}

/// What a refresh found.
pub struct Refresh {
    /// The adapters there are now.
    pub catalogue: Arc<Catalogue>,
    /// Whether it differs from the one before.
    pub changed: bool,
    /// Directories that were refused. Each is reported once, until its files change.
    pub problems: Vec<AdapterError>,
}

/// What is known of a directory, under the options it was read with.
struct Known {
    stamp: scan::Stamp,
    allow_base_mismatch: bool,
}

/// Reads directories and remembers what it has read.
pub struct Registry {
    store: Arc<AdapterStore>,
    catalogue: Arc<Catalogue>,
    known: BTreeMap<String, Known>,
    /// Contents that somebody may still ask for.
    contents: BTreeMap<AdapterId, Weak<AdapterContent>>,
    /// By name; outlives the adapter, so that a number is never given twice.
    numbers: BTreeMap<String, u64>,
    /// Directories and names already reported as unusable for reasons other than their files.
    reported: Vec<PathBuf>,
}

impl Registry {
    /// A registry without adapters; what it packs goes to `store`.
    pub fn new(store: Arc<AdapterStore>) -> Self {
        Self {
            store,
            catalogue: Arc::default(),
            known: BTreeMap::new(),
            contents: BTreeMap::new(),
            numbers: BTreeMap::new(),
            reported: Vec::new(),
        }
    }

    /// Where the images are.
    pub fn store(&self) -> &Arc<AdapterStore> {
        &self.store
    }

    /// Looks at every directory in `dirs`: an adapter itself, or a parent of adapters.
    pub fn refresh(
        &mut self,
        dirs: &[PathBuf],
        options: &BTreeMap<String, AdapterOptions>,
    ) -> Refresh {
        let found = scan::scan(dirs, self.store.base());
        let mut problems = self.unreported(found.problems);
        let mut adapters = BTreeMap::new();
        for (name, candidate) in &found.candidates {
            let options = options.get(name).cloned().unwrap_or_default();
            let old = self.catalogue.get(name);
            let new = match &candidate.stamp {
                None => Ok(old),
                Some(stamp) if self.is_known(name, stamp, &options) => Ok(old),
                Some(stamp) => self.read(name, &candidate.path, stamp, &options),
            };
            let lease = new.unwrap_or_else(|error| {
                problems.push(error);
                self.catalogue.get(name)
            });
            if let Some(lease) = lease {
                adapters.insert(name.clone(), with_tags(lease, &options.tags));
            }
        }
        for lease in self.catalogue.iter() {
            if found.unreadable.iter().any(|dir| lease.path.starts_with(dir)) {
                adapters.entry(lease.name.clone()).or_insert_with(|| lease.clone());
            }
        }
        self.known
            .retain(|name, _| found.candidates.contains_key(name) || adapters.contains_key(name));
        self.contents.retain(|_, content| content.strong_count() > 0);
        let changed = !same(&self.catalogue.adapters, &adapters);
        if changed {
            let generation = self.catalogue.generation + 1;
            self.catalogue = Arc::new(Catalogue { generation, adapters });
        }
        Refresh { catalogue: self.catalogue.clone(), changed, problems }
    }

    fn is_known(&self, name: &str, stamp: &scan::Stamp, options: &AdapterOptions) -> bool {
        self.known.get(name).is_some_and(|known| {
            known.stamp == *stamp && known.allow_base_mismatch == options.allow_base_mismatch
        })
    }

    /// Reads a directory that is new or changed. Files that change meanwhile are left for the
    /// next time.
    fn read(
        &mut self,
        name: &str,
        path: &Path,
        stamp: &scan::Stamp,
        options: &AdapterOptions,
    ) -> Result<Option<AdapterLease>, AdapterError> {
        let allow_base_mismatch = options.allow_base_mismatch;
        let examined = self.store.examine(path, stamp, allow_base_mismatch);
        let old = self.catalogue.get(name);
        if scan::stamp(path).as_ref() != Some(stamp) {
            return Ok(old);
        }
        self.known.insert(name.to_owned(), Known { stamp: stamp.clone(), allow_base_mismatch });
        let (receipt, image) = examined?;
        let content = self.content(receipt);
        if let Some(image) = image {
            self.store.keep(&content, image);
            self.store.remember((path, stamp), &receipt);
        }
        if let Some(old) = old.filter(|old| old.content.id == receipt.id && old.path == path) {
            return Ok(Some(old));
        }
        let number = self.numbers.entry(name.to_owned()).or_default();
        *number += 1;
        Ok(Some(Arc::new(AdapterGeneration {
            name: name.to_owned(),
            content,
            number: *number,
            created: SystemTime::now(),
            path: path.to_owned(),
            tags: Vec::new(),
        })))
    }

    /// The content, shared with other names of it.
    fn content(&mut self, receipt: Receipt) -> Arc<AdapterContent> {
        let known = self.contents.get(&receipt.id).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let content = Arc::new(self.store.content(receipt));
            self.contents.insert(receipt.id, Arc::downgrade(&content));
            content
        })
    }

    /// Problems of places rather than of files, each reported while it lasts but once.
    fn unreported(&mut self, problems: Vec<(PathBuf, AdapterError)>) -> Vec<AdapterError> {
        let places = problems.iter().map(|(place, _)| place.clone()).collect();
        let old = std::mem::replace(&mut self.reported, places);
        let new = problems.into_iter().filter(|(place, _)| !old.contains(place));
        new.map(|(_, error)| error).collect()
    }
}

/// The same generation with the tags that the operator gives it now.
fn with_tags(lease: AdapterLease, tags: &[(String, String)]) -> AdapterLease {
    if lease.tags == tags {
        return lease;
    }
    Arc::new(AdapterGeneration {
        name: lease.name.clone(),
        content: lease.content.clone(),
        number: lease.number,
        created: lease.created,
        path: lease.path.clone(),
        tags: tags.to_vec(),
    })
}

fn same(old: &BTreeMap<String, AdapterLease>, new: &BTreeMap<String, AdapterLease>) -> bool {
    old.len() == new.len() && old.values().zip(new.values()).all(|(a, b)| Arc::ptr_eq(a, b))
}
