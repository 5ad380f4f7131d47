//! Reads the test vectors: `tests/vectors/KIND/NAME.in` is the raw input, `NAME.out` a JSON array of the expected
//! output. That is the events of a stream (kind `sse`, as `NAME|DATA`), its lines (`lines`), the scanner's result for a
//! text (`json`), or the header value for a text (`headers`). Other languages' tests and the fuzzers' seeds use the
//! same files.

use std::{fs, path::Path};

pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) input: Vec<u8>,
    pub(crate) expected: Vec<String>,
}

/// Reads all cases of one kind. Fails if there are none, or if a case lacks its output.
pub(crate) fn read(kind: &str) -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors").join(kind);
    let inputs = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let cases: Vec<_> = inputs
        .filter(|path| path.extension().is_some_and(|extension| extension == "in"))
        .map(|path| Case {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            input: fs::read(&path).unwrap(),
            expected: serde_json::from_slice(&fs::read(path.with_extension("out")).unwrap()).unwrap(),
        })
        .collect();
    assert!(!cases.is_empty(), "no vectors in {}", folder.display());
    cases
}
