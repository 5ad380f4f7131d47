//! Decompresses the body of a response (RFC 9110, 8.4), chunk by chunk.
//!
//! A "text" here is one complete compressed stream, such as a gzip member or a zstd frame. A body may contain
//! several.
//!
//! Rules: each chunk is decompressed as far as possible, so that an event does not wait for the next one. Memory is
//! bounded at any compression ratio: a decoder takes its memory from a budget that all responses of a client
//! share. Before a step it reserves all that it may hold after the step. After the step it keeps only what it has
//! touched, because untouched memory costs nothing.

mod brotli;
mod deflate;
mod zstd;

use std::{io, time::Duration};

use bytes::{Buf as _, Bytes, BytesMut};
use compression_codecs::{
    DecodeV2, GzipDecoder,
    core::util::{PartialBuffer, WriteBuffer},
};
use http::{HeaderMap, HeaderValue, header};
use tokio::time::timeout;

use self::{brotli::Brotli, deflate::Deflate, zstd::Zstd};
use crate::{
    memory::{Budget, Taken},
    text::excerpt,
};

/// The size of an output block, in bytes.
const BLOCK: usize = 16 << 10;
/// A block with less free space than this is replaced by a new one.
const MIN_FREE_BLOCK_BYTES: usize = 4 << 10;
/// The memory of a deflate decoder, in bytes.
const DEFLATE: usize = 64 << 10;
/// The most codings of one body. Servers use one, and proxies may add another.
const MAX_CODINGS: usize = 3;
/// The longest name of a coding in an error, in bytes.
const MAX_NAME: usize = 64;
/// Limits on texts, because starting one costs as much as decompressing a thousand bytes. A body may have 64 empty
/// texts. All other texts must have 16 bytes on average.
const MAX_EMPTY_FRAMES: usize = 64;
const MIN_FRAME_BYTES: usize = 16;
/// How long a response waits for memory from the budget.
const PATIENCE: Duration = Duration::from_mins(1);

/// A body that is being decompressed.
pub(super) struct BodyDecompressor {
    /// One for each coding of the body, in the order of decompression.
    layers: Vec<Layer>,
    /// Why it cannot be read, if it has a coding that is not known.
    unknown: Option<String>,
    /// True if there is a body that cannot be read.
    is_unreadable: bool,
}

/// The decompression of one coding.
struct Layer {
    decoder: Box<dyn Decompressor>,
    input: Bytes,
    /// The free space for output.
    block: BytesMut,
    /// True if the decoder may hold output that did not fit into the block.
    is_full: bool,
    /// True if no text is incomplete. Most formats allow several texts in a row.
    is_whole: bool,
    /// An error in the body, reported after all output before it was returned.
    failed: Option<io::Error>,
    /// The number of decompressed bytes so far.
    expanded: usize,
    /// The number of texts started so far.
    texts: usize,
    held: Taken,
}

/// A decoder that knows how much memory it holds.
trait Decompressor: DecodeV2 + Send + Sync {
    /// Prepares for another text, which starts with these bytes.
    fn begin(&mut self, _input: &[u8]) {}

    /// Returns the bytes that it may hold after the next step, and those of them that it has touched. `expanded` is
    /// the number of decompressed bytes so far.
    fn weight(&self, expanded: usize) -> (usize, usize);
}

impl Decompressor for GzipDecoder {
    fn weight(&self, _expanded: usize) -> (usize, usize) {
        (DEFLATE, DEFLATE)
    }
}

impl std::fmt::Debug for BodyDecompressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BodyDecompressor").finish_non_exhaustive()
    }
}

impl BodyDecompressor {
    /// Returns a decompressor for a response with these headers, if its body has a coding. Takes its memory from this
    /// budget.
    pub(super) fn of(headers: &HeaderMap, budget: &Budget) -> Option<Self> {
        let lines = headers.get_all(header::CONTENT_ENCODING).iter().map(HeaderValue::as_bytes);
        let codings = lines.flat_map(|line| line.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
        // The header is a list, and some servers put `identity` in it.
        let codings = codings.filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"));
        let mut body = Self { layers: Vec::new(), unknown: None, is_unreadable: false };
        for coding in codings {
            let decoder: Box<dyn Decompressor> = match coding.to_ascii_lowercase().as_slice() {
                _ if body.layers.len() == MAX_CODINGS => {
                    body.unknown = Some(format!("more than {MAX_CODINGS} content codings"));
                    break;
                }
                b"zstd" => Box::new(Zstd::new()),
                b"gzip" | b"x-gzip" => Box::new(GzipDecoder::new()),
                b"deflate" => Box::new(Deflate::new()),
                b"br" => Box::new(Brotli::new()),
                _ => {
                    let name = excerpt(&String::from_utf8_lossy(coding), MAX_NAME);
                    body.unknown = Some(format!("the unknown content coding {name:?}"));
                    break;
                }
            };
            // The last one was applied last.
            body.layers.insert(0, Layer::new(decoder, budget));
        }
        if body.layers.is_empty() && body.unknown.is_none() { None } else { Some(body) }
    }

    /// Takes the next bytes of the body. All earlier ones must have been decompressed.
    pub(super) fn feed(&mut self, input: Bytes) {
        match (&self.unknown, self.layers.first_mut()) {
            (None, Some(first)) => first.feed(input),
            _ => self.is_unreadable |= !input.is_empty(),
        }
    }

    /// Returns the next decompressed bytes, or `None` if more input is needed. Waits for the memory that the decoders
    /// may need.
    ///
    /// # Errors
    /// The body is not what its header says, other responses hold the memory for too long, or a coding is unknown
    /// (`Unsupported`).
    pub(super) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if let Some(unknown) = self.unknown.as_ref().filter(|_| self.is_unreadable) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, unknown.clone()));
        }
        // From the last layer back to the first that has output, which becomes the input of the one after it.
        let mut position = self.layers.len();
        while let Some(layer) = position.checked_sub(1).and_then(|position| self.layers.get_mut(position)) {
            let Some(output) = layer.next().await? else {
                position -= 1;
                continue;
            };
            let Some(following) = self.layers.get_mut(position) else { return Ok(Some(output)) };
            following.feed(output);
            position += 1;
            // It may go on for a long time without output for the caller.
            tokio::task::coop::consume_budget().await;
        }
        Ok(None)
    }

    /// Checks that the body is complete.
    ///
    /// # Errors
    /// The last text is incomplete.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.layers.iter_mut().try_for_each(Layer::finish)
    }
}

impl Layer {
    fn new(decoder: Box<dyn Decompressor>, budget: &Budget) -> Self {
        let (input, block, held) = (Bytes::new(), BytesMut::new(), budget.nothing());
        Self { decoder, input, block, is_full: false, is_whole: true, failed: None, expanded: 0, texts: 0, held }
    }

    fn feed(&mut self, input: Bytes) {
        self.input = input;
    }

    /// As `BodyDecompressor::next`, for this coding.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if self.input.is_empty() && !self.is_full {
            return Ok(None);
        }
        if self.is_whole && !self.is_full {
            self.begin()?;
        }
        let (most, _) = self.decoder.weight(self.expanded);
        if !self.held.try_grow(most) && timeout(PATIENCE, self.held.grow(most)).await.is_err() {
            return Err(io::Error::other("other responses hold all the memory for decompression"));
        }
        let next = self.expand();
        let (_, touched) = self.decoder.weight(self.expanded);
        self.held.shrink(touched);
        next
    }

    /// Starts a text, which has its own window.
    fn begin(&mut self) -> io::Result<()> {
        self.texts += 1;
        if self.texts > MAX_EMPTY_FRAMES.saturating_add(self.expanded / MIN_FRAME_BYTES) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it consists of too many empty texts"));
        }
        self.decoder.reinit()?;
        self.decoder.begin(&self.input);
        self.is_whole = false;
        Ok(())
    }

    fn expand(&mut self) -> io::Result<Option<Bytes>> {
        while !self.input.is_empty() || self.is_full {
            if self.is_whole && !self.is_full {
                self.begin()?;
            }
            if self.block.len() < MIN_FREE_BLOCK_BYTES {
                self.block = BytesMut::zeroed(BLOCK);
            }
            let mut output = WriteBuffer::new_initialized(&mut self.block);
            let mut input = PartialBuffer::new(&self.input[..]);
            let decoded = if self.input.is_empty() {
                self.decoder.flush(&mut output).map(|_| self.is_whole)
            } else {
                self.decoder.decode(&mut input, &mut output)
            };
            let (read, written) = (input.written_len(), output.written_len());
            match decoded {
                Ok(is_whole) => self.is_whole = is_whole,
                // Return the output before the error first: it may be complete, for example if only a checksum is
                // wrong.
                Err(error) if written > 0 => self.failed = Some(error),
                Err(error) => return Err(error),
            }
            self.is_full = written == self.block.len() && !self.is_whole;
            self.input.advance(read);
            if written > 0 {
                self.expanded = self.expanded.saturating_add(written);
                return Ok(Some(self.block.split_to(written).freeze()));
            }
            if read == 0 && !self.input.is_empty() {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        Ok(None)
    }

    /// As `BodyDecompressor::finish`, for this coding.
    fn finish(&mut self) -> io::Result<()> {
        // If the end of the text had to wait for free space after all input was read, only the decoder knows that it
        // is complete.
        let is_whole =
            self.is_whole || self.decoder.finish(&mut WriteBuffer::new_initialized(&mut [0])).unwrap_or(false);
        if is_whole { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use http::HeaderValue;

    use super::*;
    use crate::memory;

    const CODINGS: [&str; 8] =
        ["gzip", "deflate", "br", "zstd", "raw deflate", "gzip, br", "zstd, deflate", "br, gzip, raw deflate"];

    /// Compresses `text` with these codings. Returns the bytes up to a flush, and the rest.
    fn compressed(codings: &str, text: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let parts = (text.to_vec(), Vec::new());
        codings.split(", ").fold(parts, |(head, rest), coding| encoded(coding, &head, &rest))
    }

    /// Encodes `head`, flushes, and encodes `rest`.
    fn encoded(coding: &str, head: &[u8], rest: &[u8]) -> (Vec<u8>, Vec<u8>) {
        fn parts<W: Write>(
            mut encoder: W,
            head: &[u8],
            rest: &[u8],
            taken: impl Fn(&mut W) -> Vec<u8>,
        ) -> (Vec<u8>, W) {
            encoder.write_all(head).unwrap();
            encoder.flush().unwrap();
            let flushed = taken(&mut encoder);
            encoder.write_all(rest).unwrap();
            (flushed, encoder)
        }
        let level = flate2::Compression::default();
        match coding {
            "gzip" => {
                let encoder = flate2::write::GzEncoder::new(Vec::new(), level);
                let (head, encoder) = parts(encoder, head, rest, |encoder| std::mem::take(encoder.get_mut()));
                (head, encoder.finish().unwrap())
            }
            "raw deflate" => {
                let encoder = flate2::write::DeflateEncoder::new(Vec::new(), level);
                let (head, encoder) = parts(encoder, head, rest, |encoder| std::mem::take(encoder.get_mut()));
                (head, encoder.finish().unwrap())
            }
            "deflate" => {
                let encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
                let (head, encoder) = parts(encoder, head, rest, |encoder| std::mem::take(encoder.get_mut()));
                (head, encoder.finish().unwrap())
            }
            "br" => {
                let encoder = ::brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
                let (head, encoder) = parts(encoder, head, rest, |encoder| std::mem::take(encoder.get_mut()));
                (head, encoder.into_inner())
            }
            _ => {
                let encoder = ::zstd::Encoder::new(Vec::new(), 3).unwrap();
                let (head, encoder) = parts(encoder, head, rest, |encoder| std::mem::take(encoder.get_mut()));
                (head, encoder.finish().unwrap())
            }
        }
    }

    fn expander(coding: &str) -> BodyDecompressor {
        within(coding, &Budget::new(memory::DECOMPRESSION))
    }

    fn within(coding: &str, budget: &Budget) -> BodyDecompressor {
        let headers = HeaderMap::from_iter([(
            header::CONTENT_ENCODING,
            HeaderValue::from_str(&coding.replace("raw ", "")).unwrap(),
        )]);
        BodyDecompressor::of(&headers, budget).unwrap()
    }

    /// Returns the output of a future that must not wait.
    fn at_once<F: Future>(future: F) -> F::Output {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("it waits"),
        }
    }

    /// Returns all output that is available after this piece.
    fn expand(expander: &mut BodyDecompressor, piece: &[u8]) -> io::Result<Vec<u8>> {
        expander.feed(Bytes::copy_from_slice(piece));
        let mut text = Vec::new();
        while let Some(block) = at_once(expander.next())? {
            assert!(block.len() <= BLOCK);
            text.extend_from_slice(&block);
        }
        Ok(text)
    }

    fn whole(coding: &str, pieces: &[&[u8]]) -> io::Result<Vec<u8>> {
        let mut expander = expander(coding);
        let mut text = Vec::new();
        for piece in pieces {
            text.extend(expand(&mut expander, piece)?);
        }
        expander.finish().map(|()| text)
    }

    #[test]
    fn too_many_empty_compressed_members_are_refused() {
        for coding in CODINGS {
            let text = |text: &[u8]| {
                let (mut all, rest) = compressed(coding, text);
                all.extend(rest);
                all
            };
            assert!(whole(coding, &[&text(b"").repeat(MAX_EMPTY_FRAMES)]).unwrap().is_empty(), "{coding}");
            let error = whole(coding, &[&text(b"").repeat(MAX_EMPTY_FRAMES + 1)]).unwrap_err();
            assert!(error.to_string().contains("too many empty texts"), "{coding}: {error}");
            assert!(whole(coding, &[&text(b"x").repeat(1_000)]).is_err(), "{coding}");
            // Some servers compress each event separately.
            let event = b"data: {\"jsonrpc\":\"2.0\"}\n\n";
            assert_eq!(whole(coding, &[&text(event).repeat(1_000)]).unwrap().len(), event.len() * 1_000, "{coding}");
        }
    }

    #[test]
    fn compressed_body_expands_equally_at_every_cut_and_fails_if_truncated() {
        let text = b"an event, and an event, and another one";
        for coding in CODINGS {
            let (mut body, rest) = compressed(coding, text);
            body.extend(rest);
            for cut in 0..=body.len() {
                let (head, tail) = body.split_at(cut);
                assert_eq!(whole(coding, &[head, tail]).unwrap(), text, "{coding} cut at {cut}");
                let is_whole = cut == 0 || cut == body.len();
                assert_eq!(whole(coding, &[head]).is_ok(), is_whole, "{coding} ended at {cut}");
            }
        }
    }

    #[test]
    fn concatenated_compressed_members_are_expanded() {
        for coding in CODINGS {
            let body: Vec<u8> = [&b"one, "[..], b"two"]
                .iter()
                .map(|text| compressed(coding, text))
                .flat_map(|(head, rest)| [head, rest].concat())
                .collect();
            for cut in 0..=body.len() {
                let (head, tail) = body.split_at(cut);
                assert_eq!(whole(coding, &[head, tail]).unwrap(), b"one, two", "{coding} cut at {cut}");
            }
        }
    }

    #[test]
    fn expanded_bytes_are_not_held_back() {
        // Text that exactly fills the block, nearly fills it, or exceeds it by far.
        for length in [1, 100, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK, 100 * BLOCK] {
            let text = vec![b' '; length];
            for coding in CODINGS {
                let (head, rest) = compressed(coding, &text);
                let mut expander = expander(coding);
                assert_eq!(expand(&mut expander, &head).unwrap().len(), length, "{coding}");
                assert!(expand(&mut expander, &rest).unwrap().is_empty());
                expander.finish().unwrap();
            }
        }
    }

    #[test]
    fn truncated_compressed_body_is_an_error() {
        for length in [BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK] {
            let text = vec![b' '; length];
            for coding in CODINGS {
                let (mut body, rest) = compressed(coding, &text);
                body.extend(rest);
                assert_eq!(whole(coding, &[&body]).unwrap().len(), length, "{coding}");
                for end in 1..body.len() {
                    assert!(whole(coding, &[&body[..end]]).is_err(), "{coding} of {length} ended at {end}");
                }
            }
        }
    }

    #[test]
    fn body_that_is_not_in_the_announced_coding_is_an_error() {
        for coding in CODINGS {
            assert!(whole(coding, &[b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}"]).is_err(), "{coding}");
            let (mut body, rest) = compressed(coding, b"text");
            body.extend(rest);
            body.extend(b"{\"id\":1}");
            assert!(whole(coding, &[&body]).is_err(), "{coding} with more after it");
        }
        assert_eq!(whole(" X-GZIP ", &[]).unwrap(), b"");
    }

    #[test]
    fn body_with_an_unknown_coding_is_an_error_unless_it_is_empty() {
        for unknown in ["compress", "gzip, foo", "foo, gzip", "gzip, gzip, gzip, gzip", "utf-8", "\"gzip\""] {
            let error = whole(unknown, &[b"text"]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::Unsupported, "{unknown}: {error}");
            assert_eq!(whole(unknown, &[b""]).unwrap(), b"", "{unknown}");
        }
        for none in ["", "identity", ",", "identity, Identity"] {
            let headers = HeaderMap::from_iter([(header::CONTENT_ENCODING, HeaderValue::from_static(none))]);
            assert!(BodyDecompressor::of(&headers, &Budget::new(1)).is_none(), "{none}");
        }
    }

    #[test]
    fn codings_may_be_on_several_header_lines() {
        let lines = ["gzip, identity", "br"].map(|line| (header::CONTENT_ENCODING, HeaderValue::from_static(line)));
        let budget = Budget::new(memory::DECOMPRESSION);
        let mut expander = BodyDecompressor::of(&HeaderMap::from_iter(lines), &budget).unwrap();
        let (head, rest) = compressed("gzip, br", b"text");
        assert_eq!(expand(&mut expander, &[head, rest].concat()).unwrap(), b"text");
        expander.finish().unwrap();
    }

    /// Returns a text that fills any window, compressed with the largest window that the coding allows.
    fn bomb(coding: &str, window: u32) -> Vec<u8> {
        let text = vec![0; 40 << 20];
        if coding == "br" {
            let mut encoder = ::brotli::CompressorWriter::new(Vec::new(), 4096, 5, window);
            encoder.write_all(&text).unwrap();
            return encoder.into_inner();
        }
        let mut encoder = ::zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(window).unwrap();
        encoder.write_all(&text).unwrap();
        encoder.finish().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn total_decompression_memory_is_limited() {
        for (coding, window) in [("br", 24), ("zstd", 23)] {
            let body = Bytes::from(bomb(coding, window));
            assert!(body.len() < 10_000, "{coding}: {}", body.len());
            let budget = Budget::new(memory::DECOMPRESSION);
            let mut open = Vec::new();
            let mut refused = 0;
            for _ in 0..8 {
                let mut expander = within(coding, &budget);
                expander.feed(body.clone());
                let mut length = 0;
                let ended = loop {
                    match expander.next().await {
                        Ok(Some(block)) => length += block.len(),
                        ended => break ended,
                    }
                };
                match ended {
                    Ok(_) => assert_eq!(length, 40 << 20, "{coding}"),
                    Err(_) => refused += 1,
                }
                open.push(expander);
            }
            let fits = memory::DECOMPRESSION / open[0].layers[0].decoder.weight(40 << 20).0;
            assert_eq!(open.len() - refused, fits, "{coding}: each has filled its window");
            // A response with little text holds little memory, even if it announces a large window.
            drop(open);
            let (head, _) = compressed(coding, b"an event");
            let open: Vec<_> = (0..40)
                .map(|_| {
                    let mut expander = within(coding, &budget);
                    assert_eq!(expand(&mut expander, &head).unwrap(), b"an event", "{coding}");
                    expander
                })
                .collect();
            drop(open);
            assert!(budget.try_take(memory::DECOMPRESSION).is_some(), "{coding}: all of it came back");
        }
    }

    #[test]
    fn decompression_windows_beyond_the_standard_are_refused() {
        // The non-standard Brotli variant announces a window of 1 GiB in two bytes.
        assert!(whole("br", &[&[0x11, 0x1e, 0, 0, 0, 0, 0, 0]]).is_err());
        assert!(whole("zstd", &[&bomb("zstd", 24)]).is_err());
        assert_eq!(whole("br", &[&bomb("br", 24)]).unwrap().len(), 40 << 20);
    }
}
