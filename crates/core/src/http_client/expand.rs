//! What decompresses the body of a response (RFC 9110, 8.4), piece by piece as it comes.
//!
//! Rules: what has come so far is expanded as far as it goes, so that an event does not wait for the next; and memory is
//! bounded, however much a little may expand to.

use std::io;

use bytes::{Buf as _, Bytes, BytesMut};
use compression_codecs::{
    BrotliDecoder, DecodeV2, GzipDecoder, ZlibDecoder, ZstdDecoder,
    core::util::{PartialBuffer, WriteBuffer},
    zstd::params::DParameter,
};
use http::{HeaderMap, header};

/// How far back a body in zstd may refer, as a power of 2: the 8 MiB that RFC 9659 allows. The library would take 128 MiB, and
/// each open reply would hold as much.
const ZSTD_WINDOW: u32 = 23;
/// What is expanded at once.
const BLOCK: usize = 16 << 10;
/// A block with less room than this is left, and another one begun.
const LITTLE_ROOM: usize = 4 << 10;

/// A body that is being expanded.
pub(super) struct Expander {
    decoder: Box<dyn DecodeV2 + Send + Sync>,
    input: Bytes,
    /// Room for what is expanded next.
    block: BytesMut,
    /// The decoder may hold more than it had room for.
    is_full: bool,
    /// Nothing has begun that is not at its end. Most formats allow several texts, one after the other.
    is_whole: bool,
}

impl std::fmt::Debug for Expander {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Expander").finish_non_exhaustive()
    }
}

impl Expander {
    /// One for a response with these headers, if its body is compressed in one way that is known.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let coding = headers.get(header::CONTENT_ENCODING)?.as_bytes().trim_ascii().to_ascii_lowercase();
        let decoder: Box<dyn DecodeV2 + Send + Sync> = match coding.as_slice() {
            b"zstd" => Box::new(ZstdDecoder::new_with_params(&[DParameter::window_log_max(ZSTD_WINDOW)])),
            b"gzip" | b"x-gzip" => Box::new(GzipDecoder::new()),
            b"deflate" => Box::new(ZlibDecoder::new()),
            b"br" => Box::new(BrotliDecoder::new()),
            _ => return None,
        };
        Some(Self { decoder, input: Bytes::new(), block: BytesMut::new(), is_full: false, is_whole: true })
    }

    /// Takes the next bytes of the body. All before must have been expanded.
    pub(super) fn feed(&mut self, input: Bytes) {
        self.input = input;
    }

    /// The next bytes of the text; `None` if they need more input.
    ///
    /// # Errors
    /// The body is not what its header says.
    pub(super) fn next(&mut self) -> io::Result<Option<Bytes>> {
        while !self.input.is_empty() || self.is_full {
            if self.is_whole && !self.is_full {
                self.decoder.reinit()?;
                self.is_whole = false;
            }
            if self.block.len() < LITTLE_ROOM {
                self.block = BytesMut::zeroed(BLOCK);
            }
            let mut output = WriteBuffer::new_initialized(&mut self.block);
            let mut input = PartialBuffer::new(&self.input[..]);
            if self.input.is_empty() {
                self.decoder.flush(&mut output)?;
            } else {
                self.is_whole = self.decoder.decode(&mut input, &mut output)?;
            }
            let (read, written) = (input.written_len(), output.written_len());
            self.is_full = written == self.block.len() && !self.is_whole;
            self.input.advance(read);
            if written > 0 {
                return Ok(Some(self.block.split_to(written).freeze()));
            }
            if read == 0 && !self.input.is_empty() {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        Ok(None)
    }

    /// The body is at its end.
    ///
    /// # Errors
    /// Its text is not.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        // The decoder alone knows, if the last of the text had to wait for room after all of the input was read.
        let is_whole =
            self.is_whole || self.decoder.finish(&mut WriteBuffer::new_initialized(&mut [0])).unwrap_or(false);
        if is_whole { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use http::HeaderValue;

    use super::*;

    const CODINGS: [&str; 4] = ["gzip", "deflate", "br", "zstd"];

    /// `text` in this coding: what must be sent before a flush, and the rest.
    fn compressed(coding: &str, text: &[u8]) -> (Vec<u8>, Vec<u8>) {
        fn parts<W: Write>(mut encoder: W, text: &[u8], taken: impl Fn(&mut W) -> Vec<u8>) -> (Vec<u8>, W) {
            encoder.write_all(text).unwrap();
            encoder.flush().unwrap();
            (taken(&mut encoder), encoder)
        }
        let level = flate2::Compression::default();
        match coding {
            "gzip" => {
                let encoder = flate2::write::GzEncoder::new(Vec::new(), level);
                let (head, encoder) = parts(encoder, text, |encoder| std::mem::take(encoder.get_mut()));
                (head, encoder.finish().unwrap())
            }
            "deflate" => {
                let encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
                let (head, encoder) = parts(encoder, text, |encoder| std::mem::take(encoder.get_mut()));
                (head, encoder.finish().unwrap())
            }
            "br" => {
                let encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
                let (head, encoder) = parts(encoder, text, |encoder| std::mem::take(encoder.get_mut()));
                (head, encoder.into_inner())
            }
            _ => {
                let encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
                let (head, encoder) = parts(encoder, text, |encoder| std::mem::take(encoder.get_mut()));
                (head, encoder.finish().unwrap())
            }
        }
    }

    fn expander(coding: &str) -> Expander {
        let headers = HeaderMap::from_iter([(header::CONTENT_ENCODING, HeaderValue::from_str(coding).unwrap())]);
        Expander::of(&headers).unwrap()
    }

    /// What can be had after this piece.
    fn expand(expander: &mut Expander, piece: &[u8]) -> io::Result<Vec<u8>> {
        expander.feed(Bytes::copy_from_slice(piece));
        let mut text = Vec::new();
        while let Some(block) = expander.next()? {
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
    fn a_text_is_the_same_at_every_cut_and_none_before_its_end() {
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
    fn texts_follow_each_other() {
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
    fn nothing_that_has_come_is_held_back() {
        // What fills the block to the last byte, nearly, or by far.
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
    fn a_text_that_outgrows_its_last_piece_has_an_end() {
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
    fn what_is_not_what_it_says() {
        for coding in CODINGS {
            assert!(whole(coding, &[b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}"]).is_err(), "{coding}");
            let (mut body, rest) = compressed(coding, b"text");
            body.extend(rest);
            body.extend(b"{\"id\":1}");
            assert!(whole(coding, &[&body]).is_err(), "{coding} with more after it");
        }
        for unknown in ["", "identity", "compress", "gzip, br"] {
            let headers = HeaderMap::from_iter([(header::CONTENT_ENCODING, HeaderValue::from_static(unknown))]);
            assert!(Expander::of(&headers).is_none(), "{unknown}");
        }
        assert_eq!(whole(" X-GZIP ", &[]).unwrap(), b"");
    }
}
