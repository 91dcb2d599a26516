//! Builds a plugin crate written in Rust into a component: the work of `switchyard plugin build`.
//! It works for any crate, in this repository or not, and needs no tool beside a Rust toolchain:
//! cargo makes a core module, the `wit-component` crate in this binary makes the component. A
//! directory with a [`MANIFEST`] is a set of committed components: all are built and their hashes
//! are renewed.

mod manifest;
mod toolchain;

#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use thiserror::Error;
use wit_component::ComponentEncoder;

pub use manifest::{MANIFEST, Manifest};
pub use toolchain::Toolchain;

/// The target of every plugin.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// Builds plugins from source.
#[derive(Clone, Debug, clap::Args)]
pub struct BuildArgs {
    /// A plugin's crate, or a directory with a `components.toml`
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Where the component goes [default: DIR/PACKAGE.wasm]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Where cargo keeps what it builds [default: `plugins` in the crate's target directory]
    #[arg(long, value_name = "DIR")]
    pub target_dir: Option<PathBuf>,
}

/// A component that was built.
#[derive(Clone, Debug)]
pub struct Built {
    /// The component's file.
    pub component: PathBuf,
    /// Its size.
    pub bytes: usize,
}

/// Why a component can't be built.
#[derive(Debug, Error)]
pub enum BuildError {
    /// A file or a program could not be used.
    #[error("{}: {error}", .path.display())]
    Io {
        /// The file or the program.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Nothing on this machine compiles to wasm32.
    #[error(
        "no Rust toolchain here compiles to {TARGET}; install one: \
         `rustup target add {TARGET}`, or on Debian \
         `apt-get install rustc-web cargo-web rust-web-src lld-19`"
    )]
    NoToolchain,
    /// Cargo refused; its own messages went to standard error.
    #[error("{}: cargo {command} failed, see above", .dir.display())]
    Cargo {
        /// The crate.
        dir: PathBuf,
        /// Which command of cargo.
        command: &'static str,
    },
    /// The crate makes no core module.
    #[error(
        "{}: no library for {TARGET} came out of this crate; \
         its Cargo.toml needs `[lib] crate-type = [\"cdylib\"]`",
        .dir.display()
    )]
    NotAPlugin {
        /// The crate.
        dir: PathBuf,
    },
    /// The core module is no plugin.
    #[error("{}: no plugin, is `switchyard_plugin::export!` missing? {reason}", .module.display())]
    Encode {
        /// The core module.
        module: PathBuf,
        /// What the encoder said.
        reason: String,
    },
    /// The list of committed components is broken.
    #[error("{}: {reason}", .path.display())]
    Manifest {
        /// The list.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// One output file can't hold several components.
    #[error("--out names one file, but {} holds several components", .dir.display())]
    ManyForOne {
        /// The directory.
        dir: PathBuf,
    },
}

impl BuildError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Io { path, error }
    }
}

impl BuildArgs {
    /// Builds what the arguments name.
    pub fn run(&self) -> Result<Vec<Built>, BuildError> {
        let target_dir = self.target_dir.as_deref();
        let Some(mut manifest) = Manifest::read(&self.dir)? else {
            return build(&self.dir, self.out.as_deref(), target_dir).map(|built| vec![built]);
        };
        if self.out.is_some() {
            return Err(BuildError::ManyForOne { dir: self.dir.clone() });
        }
        let mut all = Vec::new();
        for package in manifest.packages() {
            let dir = self.dir.join(&package);
            all.push(build(&dir, Some(&manifest.component(&package)), target_dir)?);
        }
        manifest.renew()?;
        Ok(all)
    }
}

/// Builds the crate in `dir` and writes the component to `out`, or beside its `Cargo.toml`.
pub fn build(
    dir: &Path,
    out: Option<&Path>,
    target_dir: Option<&Path>,
) -> Result<Built, BuildError> {
    let toolchain = Toolchain::find(dir)?;
    let package = Package::read(dir, &toolchain)?;
    let target_dir = match target_dir {
        Some(given) => std::path::absolute(given).map_err(BuildError::io(given))?,
        None => package.target_dir.join("plugins"),
    };
    let module = compile(dir, &toolchain, &target_dir, &package)?;
    let component = encode(&module)?;
    let out = out.map_or_else(|| dir.join(format!("{}.wasm", package.name)), Path::to_owned);
    // A running host may watch the file: it sees the old component or the new one, never a part.
    let part = out.with_extension("wasm.part");
    fs::write(&part, &component).map_err(BuildError::io(&part))?;
    fs::rename(&part, &out).map_err(BuildError::io(&out))?;
    Ok(Built { component: out, bytes: component.len() })
}

/// What cargo knows of a crate.
struct Package {
    name: String,
    manifest: PathBuf,
    target_dir: PathBuf,
}

impl Package {
    fn read(dir: &Path, toolchain: &Toolchain) -> Result<Self, BuildError> {
        let path = dir.join("Cargo.toml");
        let manifest = fs::canonicalize(&path).map_err(BuildError::io(&path))?;
        let mut cargo = toolchain.cargo(dir);
        cargo.args(["metadata", "--no-deps", "--format-version", "1"]);
        let output = run(&mut cargo, dir, "metadata")?;
        let not_a_plugin = || BuildError::NotAPlugin { dir: dir.to_owned() };
        let metadata: Value = serde_json::from_slice(&output.stdout).map_err(|_| not_a_plugin())?;
        let packages = metadata["packages"].as_array().ok_or_else(not_a_plugin)?;
        let package = packages
            .iter()
            .find(|package| package["manifest_path"].as_str().map(Path::new) == Some(&manifest))
            .ok_or_else(not_a_plugin)?;
        let name = package["name"].as_str().ok_or_else(not_a_plugin)?.to_owned();
        let target_dir = metadata["target_directory"].as_str().ok_or_else(not_a_plugin)?.into();
        Ok(Self { name, manifest, target_dir })
    }
}

/// Compiles to a core module and returns its path.
fn compile(
    dir: &Path,
    toolchain: &Toolchain,
    target_dir: &Path,
    package: &Package,
) -> Result<PathBuf, BuildError> {
    let mut cargo = toolchain.cargo(dir);
    cargo.args(["build", "--lib", "--release", "--target", TARGET]);
    cargo.args(["--message-format", "json-render-diagnostics", "--target-dir"]);
    cargo.arg(target_dir).args(toolchain.build_args()).args(remapped_paths(&package.manifest));
    let output = run(&mut cargo, dir, "build")?;
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| {
            message["reason"] == "compiler-artifact"
                && message["manifest_path"].as_str().map(Path::new) == Some(&package.manifest)
        })
        .filter_map(|message| module_of(&message))
        .next_back()
        .ok_or_else(|| BuildError::NotAPlugin { dir: dir.to_owned() })
}

/// Keeps this machine's folders out of a component, which carries its sources' paths for panics:
/// the outermost folder that is a Cargo project becomes the root, Cargo's home is called `/cargo`.
fn remapped_paths(manifest: &Path) -> Option<String> {
    let projects = manifest.ancestors().filter(|dir| dir.join("Cargo.toml").exists());
    let project = projects.last()?.to_str()?;
    let home = std::env::home_dir()?.join(".cargo");
    let flags = [
        format!("--remap-path-prefix={}=/cargo", home.to_str()?),
        format!("--remap-path-prefix={project}="),
    ];
    Some(format!("--config=target.{TARGET}.rustflags={flags:?}"))
}

/// The wasm file among an artifact's files.
fn module_of(artifact: &Value) -> Option<PathBuf> {
    let files = artifact["filenames"].as_array()?;
    files
        .iter()
        .filter_map(Value::as_str)
        .map(PathBuf::from)
        .find(|file| file.extension().is_some_and(|extension| extension == "wasm"))
}

/// Runs cargo with its standard error shown.
fn run(cargo: &mut Command, dir: &Path, command: &'static str) -> Result<Output, BuildError> {
    let program = PathBuf::from(cargo.get_program());
    let output = cargo.stderr(Stdio::inherit()).output().map_err(BuildError::io(&program))?;
    if output.status.success() {
        return Ok(output);
    }
    Err(BuildError::Cargo { dir: dir.to_owned(), command })
}

/// Makes a component of a core module that carries its own description.
fn encode(module: &Path) -> Result<Vec<u8>, BuildError> {
    let core = fs::read(module).map_err(BuildError::io(module))?;
    let encoder = ComponentEncoder::default().validate(true).module(&core);
    let encoded = encoder.and_then(|mut encoder| encoder.encode());
    encoded.map_err(|error| BuildError::Encode {
        module: module.to_owned(),
        reason: format!("{error:#}"),
    })
}
