//! The house rules that a compiler does not check, over every source file of the repository.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::harness::root;

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const LINE_CHARS_MAX: usize = 100;
const BANNED_NAMES: [&str; 6] = ["util", "utils", "helper", "helpers", "common", "misc"];

/// Modules of the host from the bottom up; a module may use only those before it.
const LAYERS: [&str; 20] = [
    "startup",
    "model",
    "engine",
    "kernel_cache",
    "device",
    "chat",
    "watch",
    "checkpoint",
    "tokenizer",
    "template",
    "adapters",
    "plugins",
    "generation",
    "http",
    "config",
    "reload",
    "serve",
    "bench",
    "compare",
    "cli",
];

struct Source {
    path: String,
    text: String,
}

fn collect(dir: &Path, sources: &mut Vec<Source>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(dir).expect("a source folder").map(|e| e.expect("an entry").path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                collect(&path, sources);
            }
        } else if ["rs", "py", "cu", "cuh"]
            .iter()
            .any(|e| path.extension().is_some_and(|x| x == *e))
        {
            let text = fs::read_to_string(&path).expect("source is UTF-8");
            let path = path.strip_prefix(root()).expect("below the root").display().to_string();
            sources.push(Source { path, text });
        }
    }
}

fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    for dir in ["host", "kernels", "plugin-sdk", "plugins", "tests"] {
        collect(&root().join(dir), &mut sources);
    }
    assert!(sources.len() > 50, "the walk found the repository");
    sources
}

fn report(rule: &str, faults: Vec<String>) {
    assert!(faults.is_empty(), "{rule}:\n  {}", faults.join("\n  "));
}

#[test]
fn files_are_short() {
    let long = |s: &Source| (s.text.lines().count() > FILE_LINES_MAX).then(|| s.path.clone());
    report("a file has at most 500 lines", sources().iter().filter_map(long).collect());
}

/// Lines of each function of a formatted Rust file: from `fn` to the brace at its indent.
fn function_lengths(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let head = code.split("fn ").next().unwrap_or_default();
        let qualifiers = ["", "pub ", "pub(crate) ", "pub(super) ", "unsafe ", "async ", "const "];
        let is_fn = code.contains("fn ")
            && head.split_inclusive(' ').all(|word| qualifiers.contains(&word));
        if !is_fn {
            continue;
        }
        let close = format!("{}}}", &line[..line.len() - code.len()]);
        let end =
            lines[start..].iter().position(|l| *l == close || l.ends_with(';') && *l == *line);
        if let Some(end) = end {
            found.push((code.to_owned(), end + 1));
        }
    }
    found
}

#[test]
fn functions_are_short() {
    let mut faults = Vec::new();
    for source in sources().iter().filter(|s| s.path.ends_with(".rs")) {
        for (name, lines) in function_lengths(&source.text) {
            if lines > FUNCTION_LINES_MAX {
                faults.push(format!("{}: {name} has {lines}", source.path));
            }
        }
    }
    report("a function has at most 70 lines", faults);
}

#[test]
fn lines_fit() {
    let mut faults = Vec::new();
    for source in sources().iter().filter(|s| !s.path.starts_with("host/demo")) {
        for (number, line) in source.text.lines().enumerate() {
            if line.chars().count() > LINE_CHARS_MAX {
                faults.push(format!("{}:{}", source.path, number + 1));
            }
        }
    }
    report("a line has at most 100 characters", faults);
}

#[test]
fn files_are_named_after_nouns() {
    let banned = |s: &Source| {
        let parts = s.path.split(['/', '.']);
        parts.clone().any(|part| BANNED_NAMES.contains(&part)).then(|| s.path.clone())
    };
    report("no dumping grounds", sources().iter().filter_map(banned).collect());
}

#[test]
fn unsafe_lives_in_kernels_only() {
    let word = ["unsafe", " {"].concat();
    let faulty = |s: &&Source| {
        !s.path.starts_with("kernels/")
            && s.path.ends_with(".rs")
            && (s.text.contains(&word) || s.text.contains(&["unsafe", " fn"].concat()))
    };
    let faults = sources().iter().filter(faulty).map(|s| s.path.clone()).collect();
    report("unsafe stands in kernels/ and nowhere else", faults);
}

#[test]
fn environment_is_read_in_main_only() {
    let call = ["env", "::var"].concat();
    let faulty = |s: &&Source| {
        s.path.starts_with("host/src/") && s.path != "host/src/main.rs" && s.text.contains(&call)
    };
    let faults = sources().iter().filter(faulty).map(|s| s.path.clone()).collect();
    report("configuration comes from config.toml and flags", faults);
}

#[test]
fn arrows_between_layers_point_down() {
    let rank = |module: &str| LAYERS.iter().position(|layer| *layer == module);
    let mut faults = Vec::new();
    for source in sources() {
        let Some(inner) = source.path.strip_prefix("host/src/") else { continue };
        let module = inner.split(['/', '.']).next().unwrap_or_default();
        if ["lib", "main"].contains(&module) {
            continue;
        }
        let own = rank(module).unwrap_or_else(|| panic!("{}: place it in a layer", source.path));
        for (number, line) in source.text.lines().enumerate() {
            for used in line.split("crate::").skip(1) {
                let end = used.find(|c: char| !c.is_alphanumeric() && c != '_');
                let used = &used[..end.unwrap_or(used.len())];
                if rank(used).is_some_and(|other| other > own) {
                    faults.push(format!("{}:{} uses {used}", source.path, number + 1));
                }
            }
        }
    }
    report("a module uses only what stands below it", faults);
}

#[test]
fn every_backend_operation_has_its_file() {
    let operations = [
        "embed",
        "norm",
        "matmul",
        "shrink",
        "rope_store",
        "attention",
        "activate",
        "gather",
        "sample",
    ];
    let trait_text = fs::read_to_string(root().join("kernels/src/backend.rs")).expect("the trait");
    let missing = |name: &str| {
        !trait_text.contains(&format!("fn {name}("))
            || !root().join(format!("kernels/src/cpu/{name}.rs")).exists()
    };
    let faults = operations.into_iter().filter(|name| missing(name)).map(str::to_owned).collect();
    report("one trait method = one CPU file", faults);
}
