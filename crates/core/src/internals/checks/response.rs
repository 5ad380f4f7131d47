//! Checks a response as bytes on a connection: its framing, and the decompression of its body. In any chunks the client
//! finds the same, or fails each time. It never returns a large piece.

use std::time::Duration;

use compression_codecs::{
    EncodeV2, GzipEncoder, ZlibEncoder,
    core::{
        Level,
        util::{PartialBuffer, WriteBuffer},
    },
};
use http::{Request, StatusCode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
    task::yield_now,
    time::timeout,
};

use super::{Input, NoBody, compressed};
use crate::http::{HttpClient, HttpSettings, Proxy, in_memory::Network};

/// The most bytes that are read, as a small body can expand to a very large one.
const MOST: u64 = 8 << 20;
/// The most pieces of a response.
const MAX_CHUNKS: usize = 20_000;
/// The largest piece: the size of one read from a connection.
const MAX_CHUNK_BYTES: usize = 64 << 10;
/// The deadline. A response waits only for its own bytes.
const TIME: Duration = Duration::from_mins(1);

/// Checks any bytes as a response, or as its body in any coding.
pub fn response(input: &[u8]) {
    let input = Input::read(input);
    let whole = Found::of(&wire(input.choice, &[&input.text]));
    for chunks in input.cuts() {
        // More of them take a second in the simulated network, and show nothing that fewer do not.
        if chunks.len() > MAX_CHUNKS {
            continue;
        }
        let found = Found::of(&wire(input.choice, &chunks));
        // The zstd library compares the size in the frame with the real size only if all of it arrives at once.
        let is_unsized = input.choice & 7 == 4 && matches!((&found, &whole), (Found::Whole { .. }, Found::Failed));
        // After a failure, the amount before it depends on the chunks.
        assert!(found == whole || is_unsized, "{}: {found:?}, not {whole:?}", input.shown());
    }
    if let (0..5, Some(compressed)) = (input.choice & 7, compressed(input.choice, &input.text)) {
        let plain = Found::of(&wire(0, &[&input.text]));
        let expanded = Found::of(&wire(input.choice & !16, &[&compressed]));
        assert!(expanded == plain, "{}: {expanded:?}, not {plain:?}", input.shown());
    }
}

/// Makes the bytes on the connection, in pieces, for a text in these chunks. The choice has the coding in its lowest
/// bits, then the framing, then whether the server yields between its pieces.
fn wire(choice: u8, chunks: &[&[u8]]) -> Vec<Vec<u8>> {
    let Some(coding) = ["identity", "gzip", "deflate", "br", "zstd"].get(usize::from(choice & 7)) else {
        // The text is the whole response.
        return chunks.iter().map(|chunk| chunk.to_vec()).collect();
    };
    let head = |framing: &str| format!("HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\n{framing}\r\n").into_bytes();
    let length: usize = chunks.iter().map(|chunk| chunk.len()).sum();
    match choice >> 3 & 3 {
        0 => [head(&format!("Content-Length: {length}\r\n"))]
            .into_iter()
            .chain(chunks.iter().map(|chunk| chunk.to_vec()))
            .collect(),
        1 => [head("")].into_iter().chain(chunks.iter().map(|chunk| chunk.to_vec())).collect(),
        _ => {
            let framed = chunks
                .iter()
                .filter(|chunk| !chunk.is_empty())
                .map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
            [head("Transfer-Encoding: chunked\r\n")].into_iter().chain(framed).chain([b"0\r\n\r\n".to_vec()]).collect()
        }
    }
}

/// Compresses the text in the coding of this choice.
fn compressed(choice: u8, text: &[u8]) -> Option<Vec<u8>> {
    match choice & 7 {
        1 => Some(encoded(GzipEncoder::new(Level::Default.into()), text)),
        2 => Some(encoded(ZlibEncoder::new(Level::Default.into()), text)),
        3 => Some(compressed::brotli(22, text)),
        4 => Some(compressed::zstd(0x58, text)),
        _ => None,
    }
}

fn encoded(mut encoder: impl EncodeV2, text: &[u8]) -> Vec<u8> {
    let mut room = vec![0; text.len() + 1024];
    let mut output = WriteBuffer::new_initialized(&mut room);
    let mut input = PartialBuffer::new(text);
    while input.written_len() < text.len() {
        encoder.encode(&mut input, &mut output).expect("it has room");
    }
    assert!(encoder.finish(&mut output).expect("it has room"), "it has room");
    let length = output.written_len();
    room.truncate(length);
    room
}

/// The client's result.
#[derive(Debug, PartialEq)]
enum Found {
    Failed,
    Whole {
        status: StatusCode,
        length: u64,
        hash: u64,
    },
    /// At least [`MOST`] bytes.
    Much(StatusCode),
}

impl Found {
    fn of(pieces: &[Vec<u8>]) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let found = runtime.expect("a runtime").block_on(async { timeout(TIME, Self::find(pieces)).await });
        found.expect("a response has an end")
    }

    async fn find(pieces: &[Vec<u8>]) -> Self {
        let pieces = pieces.to_vec();
        let _network = Network::new(move |_| {
            let (near, mut far) = duplex(MAX_CHUNK_BYTES);
            let pieces = pieces.clone();
            tokio::spawn(async move {
                let mut request = [0; 1024];
                let _ = far.read(&mut request).await;
                for piece in pieces {
                    if far.write_all(&piece).await.is_err() {
                        return;
                    }
                    // Let the client read this piece before the next one.
                    for _ in 0..4 {
                        yield_now().await;
                    }
                }
            });
            Ok(Box::new(near))
        });
        let settings = HttpSettings { proxy: Proxy::None, ..HttpSettings::default() };
        let client = HttpClient::new(settings).expect("a client");
        let mut request = Request::new(NoBody);
        *request.uri_mut() = "http://server.test/".parse().expect("a URI");
        let Ok(mut response) = client.send(request).await else { return Self::Failed };
        let (status, mut length, mut hash) = (response.status(), 0, 0xcbf2_9ce4_8422_2325_u64);
        loop {
            match response.body_mut().chunk().await {
                Ok(Some(piece)) => {
                    assert!(piece.len() <= MAX_CHUNK_BYTES, "a piece of {} bytes", piece.len());
                    length += piece.len() as u64;
                    // FNV-1a, which does not depend on piece boundaries.
                    hash =
                        piece.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
                }
                Ok(None) => return Self::Whole { status, length, hash },
                Err(_) => return Self::Failed,
            }
            if length > MOST {
                return Self::Much(status);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_decodes_equally_in_all_codings_and_framings() {
        for choice in 0..32 {
            // In one piece, in pieces of 2 and 7 bytes, and stretched to 160 KiB in pieces of a few hundred.
            for form in [&[0, 0][..], &[2, 0, 1, 6], &[61 << 2 | 1, 0, 6]] {
                response(&[&[choice], form, b"data: {}\n\n"].concat());
            }
        }
    }

    #[test]
    fn malformed_responses_give_the_same_result_at_every_cut() {
        for text in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 204 x\r\nTransfer-Encoding: chunked\r\n\r\nzz",
            "\0",
        ] {
            response(&[&[7, 2, 0, 0, 3], text.as_bytes()].concat());
        }
    }
}
