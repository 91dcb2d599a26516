//! Finds a Rust toolchain that compiles to wasm32: the user's own if its target is installed, else
//! Debian's `rustc-web`, which compiles the standard library from `rust-web-src` on first use.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{BuildError, TARGET};

/// How plugins are compiled here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// The `cargo` of the user, with the target's standard library.
    Installed,
    /// The distribution's compiler, which builds the standard library first.
    Distribution {
        /// What links core modules.
        linker: PathBuf,
    },
}

const DISTRIBUTION_RUSTC: &str = "/usr/bin/rustc";
const DISTRIBUTION_CARGO: &str = "/usr/bin/cargo";

impl Toolchain {
    /// The first toolchain that works for a crate in `dir` (which may pin one).
    pub fn find(dir: &Path) -> Result<Self, BuildError> {
        let mut rustc = Command::new("rustc");
        rustc.current_dir(dir).args(["--print", "target-libdir", "--target", TARGET]);
        if printed_path(&mut rustc).is_some_and(|libraries| has_std(&libraries)) {
            return Ok(Self::Installed);
        }
        let mut rustc = Command::new(DISTRIBUTION_RUSTC);
        let sysroot = printed_path(rustc.args(["--print", "sysroot"]));
        let sysroot = sysroot.ok_or(BuildError::NoToolchain)?;
        let has_source = sysroot.join("lib/rustlib/src/rust/library/std/Cargo.toml").exists();
        match linker(&sysroot) {
            Some(linker) if has_source && Path::new(DISTRIBUTION_CARGO).exists() => {
                Ok(Self::Distribution { linker })
            }
            _ => Err(BuildError::NoToolchain),
        }
    }

    /// Cargo, to be run in `dir`.
    pub(super) fn cargo(&self, dir: &Path) -> Command {
        let mut cargo = match self {
            Self::Installed => Command::new("cargo"),
            Self::Distribution { linker } => {
                let mut cargo = Command::new(DISTRIBUTION_CARGO);
                cargo.env("RUSTC", DISTRIBUTION_RUSTC);
                // -Zbuild-std is not stable yet; this compiler is the one its sources belong to.
                cargo.env("RUSTC_BOOTSTRAP", "1");
                cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
                cargo
            }
        };
        cargo.current_dir(dir);
        cargo
    }

    /// What `cargo build` needs beside the target.
    pub(super) fn build_args(&self) -> &'static [&'static str] {
        match self {
            Self::Installed => &[],
            Self::Distribution { .. } => &["-Zbuild-std=std,panic_abort"],
        }
    }
}

/// The path that rustc prints, if it runs.
fn printed_path(rustc: &mut Command) -> Option<PathBuf> {
    let output = rustc.output().ok().filter(|output| output.status.success())?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
}

fn has_std(libraries: &Path) -> bool {
    names(libraries).any(|name| name.starts_with("libstd-"))
}

/// LLVM's linker for wasm: the compiler's own, or one that the distribution has.
fn linker(sysroot: &Path) -> Option<PathBuf> {
    let rustlib = sysroot.join("lib/rustlib");
    let own = names(&rustlib).map(|host| rustlib.join(host).join("bin/rust-lld"));
    let bin = Path::new("/usr/bin");
    let of_distribution = names(bin).filter(|name| name.starts_with("wasm-ld"));
    own.chain(of_distribution.map(|name| bin.join(name))).find(|path| path.exists())
}

/// The names in a directory in order; none if it can't be read.
fn names(dir: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<_> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names.into_iter()
}
