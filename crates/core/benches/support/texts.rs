//! Test data: messages and streams of all sizes.

use std::iter;

use bytes::Bytes;

/// The size of a stream of small messages.
const STREAM: usize = 4 << 20;

/// Cuts a text into chunks, as a connection does.
pub(crate) fn chunks(stream: &Bytes, size: usize) -> impl Iterator<Item = Bytes> {
    (0..stream.len()).step_by(size).map(move |start| stream.slice(start..stream.len().min(start + size)))
}

/// Makes a stream of [`STREAM`] bytes of messages. Each has `size` bytes and is between `before` and `after`.
pub(crate) fn stream(before: &str, size: usize, after: &str) -> Bytes {
    let one = format!("{before}{}{after}", message(size));
    Bytes::from(one.repeat(STREAM.div_ceil(one.len())))
}

/// Makes a notification of `size` bytes.
pub(crate) fn message(size: usize) -> String {
    let head = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"message":""#;
    let text = "Read 12 of 40 files; ".chars().cycle().take(size - head.len() - r#""}}"#.len());
    head.chars().chain(text).chain(r#""}}"#.chars()).collect()
}

/// Makes a tool's result of about `size` bytes, with typical content.
pub(crate) fn result(kind: &str, size: usize) -> String {
    let item = match kind {
        "ascii" => r#"{"type":"text","text":"The file has 412 lines and was last changed by the build on Monday."},"#,
        "utf8" => r#"{"type":"text","text":"Файл изменён в понедельник; 檔案共有四百一十二行; Größe geändert."},"#,
        "escapes" => r#"{"type":"text","text":"fn main() {\n\tprintln!(\"{}\\n\", \"a\\tb\");\n}\n\u00e9\n"},"#,
        "numbers" => r#"{"x":[0.25,-17,1e9,3.14159,42],"y":[1,2,3,4,5,6],"on":true,"off":null,"k":[[],{}]},"#,
        _ => "{\n      \"type\": \"text\",\n      \"lines\": 412,\n      \"text\": \"last changed\"\n    },\n    ",
    };
    let items: String = iter::repeat_n(item, size / item.len()).collect();
    format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"content":[{items}{{}}]}}}}"#)
}
