//! Checks that the folders of the core import each other in one direction only (ARCHITECTURE.md).

use std::{fs, path::Path};

/// The folders and files of `src`, from the lowest layer to the highest. A file imports from its own layer and from
/// lower ones.
const LAYERS: [&[&str]; 10] = [
    &["error", "folder", "gate", "memory", "open_files", "random", "secrets", "task", "text"],
    &["json"],
    &["wire"],
    &["http", "streams"],
    &["translate"],
    &["auth"],
    &["config"],
    &["client", "server"],
    &["call"],
    &["bridge"],
];
/// Folders of one layer that must not import each other.
const APART: [(&str, &str); 2] = [("client", "server"), ("server", "client")];
/// Modules without a layer: the crate's root, and those for tests and benchmarks, which import everything.
const OUTSIDE: [&str; 4] = ["internals", "lib", "vectors", "worst"];

#[test]
fn modules_import_only_from_lower_or_equal_layers() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    let mut imports = 0;
    for (path, module) in files(&source, None) {
        if OUTSIDE.contains(&&*module) {
            continue;
        }
        let layer = layer_of(&module).unwrap_or_else(|| panic!("{} is in no layer", path.display()));
        for imported in imported_modules(&fs::read_to_string(&path).unwrap()) {
            let Some(lower) = layer_of(&imported) else { continue };
            imports += usize::from(imported != module);
            if lower > layer || APART.contains(&(&*module, &*imported)) {
                wrong.push(format!("{} imports {imported}", path.strip_prefix(&source).unwrap().display()));
            }
        }
    }
    assert!(imports > 100, "only {imports} imports were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// Returns the source files below a folder, each with its outermost module.
fn files(folder: &Path, module: Option<&str>) -> Vec<(std::path::PathBuf, String)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let own = module.unwrap_or(path.file_stem().unwrap().to_str().unwrap()).to_owned();
        if path.is_dir() {
            all.extend(files(&path, Some(&own)));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push((path, own));
        }
    }
    all
}

/// Returns the first name of each path that begins with `crate::`, except in comments and in a file's unit tests.
fn imported_modules(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let code: Vec<_> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    code.split("crate::")
        .skip(1)
        .flat_map(|path| if path.starts_with('{') { names(path) } else { name(path) })
        .collect()
}

fn name(path: &str) -> Vec<String> {
    vec![path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()]
}

/// Returns the names at the outermost level of a group of imports.
fn names(group: &str) -> Vec<String> {
    let (mut depth, mut names) = (0, vec![String::new()]);
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => break,
            '}' => depth -= 1,
            ',' if depth == 1 => names.push(String::new()),
            c if depth == 1 && !c.is_whitespace() => names.last_mut().unwrap().push(c),
            _ => {}
        }
    }
    names.iter().flat_map(|path| name(path)).filter(|name| !name.is_empty()).collect()
}
