//! The list of committed components, each with the hash of the sources it was built from, so that a
//! component that no longer belongs to its sources is found by a test and not by a user.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::BuildError;

/// The list's file name.
pub const MANIFEST: &str = "components.toml";

/// The committed components of one directory.
#[derive(Debug)]
pub struct Manifest {
    dir: PathBuf,
    components: Vec<Component>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    component: Vec<Component>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Component {
    /// The crate's directory, and its component's name.
    package: String,
    /// Crates whose sources count, relative to the list; its own among them.
    sources: Vec<String>,
    sources_blake3: String,
    component_blake3: String,
}

impl Manifest {
    /// Reads the list in `dir`, if it has one.
    pub fn read(dir: &Path) -> Result<Option<Self>, BuildError> {
        let path = dir.join(MANIFEST);
        if !path.exists() {
            return Ok(None);
        }
        let text = fs::read_to_string(&path).map_err(BuildError::io(&path))?;
        let raw: Raw = toml::from_str(&text)
            .map_err(|error| BuildError::Manifest { path, reason: error.to_string() })?;
        Ok(Some(Self { dir: dir.to_owned(), components: raw.component }))
    }

    /// The crates of the list.
    pub fn packages(&self) -> Vec<String> {
        self.components.iter().map(|component| component.package.clone()).collect()
    }

    /// Where the component of `package` is.
    pub fn component(&self, package: &str) -> PathBuf {
        self.dir.join(package).join(format!("{package}.wasm"))
    }

    /// One line for each component that does not belong to its sources.
    pub fn stale(&self) -> Result<Vec<String>, BuildError> {
        let mut lines = Vec::new();
        for component in &self.components {
            let (sources, binary) = self.hashes(component)?;
            let name = &component.package;
            if sources != component.sources_blake3 {
                lines.push(format!("{name}: its sources changed since it was built"));
            }
            if binary != component.component_blake3 {
                lines.push(format!("{name}: the component is not the one that was recorded"));
            }
        }
        Ok(lines)
    }

    /// Records the hashes of what is there now.
    pub(super) fn renew(&mut self) -> Result<(), BuildError> {
        let mut text = format!(
            "# The committed components and the sources they were built from.\n\
             # Written by `switchyard plugin build {}`.\n",
            self.dir.display()
        );
        for component in &self.components {
            let (sources, binary) = self.hashes(component)?;
            // Writing to a String can't fail.
            let _ = write!(
                text,
                "\n[[component]]\npackage = {:?}\nsources = {:?}\n\
                 sources-blake3 = \"{sources}\"\ncomponent-blake3 = \"{binary}\"\n",
                component.package, component.sources
            );
        }
        let path = self.dir.join(MANIFEST);
        fs::write(&path, text).map_err(BuildError::io(&path))
    }

    /// The hashes of a component's sources and of the component.
    fn hashes(&self, component: &Component) -> Result<(String, String), BuildError> {
        let mut hasher = blake3::Hasher::new();
        for source in &component.sources {
            let root = self.dir.join(source);
            let mut files = vec![PathBuf::from("Cargo.toml")];
            list(&root, Path::new("src"), &mut files)?;
            list(&root, Path::new("wit"), &mut files)?;
            files.sort();
            for file in files {
                let path = root.join(&file);
                let content = fs::read(&path).map_err(BuildError::io(&path))?;
                // Lengths keep a name apart from its content and from the next file.
                let name = format!("{source}/{}", file.display());
                hasher.update(format!("{name}\0{}\0", content.len()).as_bytes());
                hasher.update(&content);
            }
        }
        let path = self.component(&component.package);
        let binary = fs::read(&path).map_err(BuildError::io(&path))?;
        Ok((hasher.finalize().to_hex().to_string(), blake3::hash(&binary).to_hex().to_string()))
    }
}

/// Appends the files below `root/dir` that a component is made of: all but unit tests.
fn list(root: &Path, dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), BuildError> {
    let path = root.join(dir);
    if !path.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(&path).map_err(BuildError::io(&path))? {
        let entry = entry.map_err(BuildError::io(&path))?;
        let name = dir.join(entry.file_name());
        let kind = entry.file_type().map_err(BuildError::io(&path))?;
        if kind.is_dir() && !name.ends_with("tests") {
            list(root, &name, files)?;
        } else if kind.is_file() && !name.ends_with("tests.rs") {
            files.push(name);
        }
    }
    Ok(())
}
