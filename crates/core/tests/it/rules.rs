//! Tests the rules of `docs/rules.md`: it lists each number that the sources cite, and each number that it lists has a
//! test.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The folders, relative to the repository, with files that cite rules.
const CITING: [&str; 5] = ["crates", "docs", "python", "tests/interop", "tests/conformance"];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Collects all texts under a folder, except files that tools generated.
fn texts(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name());
        let is_kept = !matches!(name.to_str(), Some("target" | "node_modules" | "__pycache__" | "rules.md"));
        if entry.file_type().unwrap().is_dir() && is_kept {
            texts(&path, found);
        } else if is_kept
            && path.extension().is_some_and(|kind| ["rs", "py", "md", "cjs"].iter().any(|own| kind == *own))
        {
            found.push(fs::read_to_string(path).unwrap());
        }
    }
}

/// Returns the numbers that follow `mark` at the beginning of a word.
fn numbers(text: &str, mark: char) -> impl Iterator<Item = u32> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    words.filter_map(move |word| word.strip_prefix(mark)?.parse().ok())
}

#[test]
fn cited_rules_are_listed_and_listed_rules_are_tested() {
    let listed: Vec<u32> = fs::read_to_string(repository().join("docs/rules.md"))
        .unwrap()
        .lines()
        .filter_map(|line| line.strip_prefix("| R")?.split(' ').next()?.parse().ok())
        .collect();
    assert!(listed.is_sorted() && listed.len() > 50, "{listed:?}");
    let listed = BTreeSet::from_iter(listed);

    let mut all = Vec::new();
    for folder in CITING {
        texts(&repository().join(folder), &mut all);
    }
    let cited: BTreeSet<u32> = all.iter().flat_map(|text| numbers(text, 'R')).collect();
    let unknown: Vec<_> = cited.difference(&listed).collect();
    assert!(unknown.is_empty(), "cited, and not in docs/rules.md: {unknown:?}");

    let names = all.iter().flat_map(|text| text.split("fn ").skip(1)).filter_map(|rest| rest.split('(').next());
    let tested: BTreeSet<u32> = names.flat_map(|name| numbers(name, 'r')).collect();
    let untested: Vec<_> = listed.difference(&tested).collect();
    assert!(untested.is_empty(), "in docs/rules.md, and in no test's name: {untested:?}");
    let unlisted: Vec<_> = tested.difference(&listed).collect();
    assert!(unlisted.is_empty(), "tested, and not in docs/rules.md: {unlisted:?}");
}
