//! Makes compressed bodies by hand. They declare windows that no encoder would choose: the window decides how much
//! memory a decoder takes, even for a short text.

/// Encodes a text in brotli (RFC 7932), as uncompressed meta-blocks. `window` is a power of 2 from 10 to 24. A larger
/// one uses the "large window" form of encoders, which is not in the standard.
pub(super) fn brotli(window: u8, text: &[u8]) -> Vec<u8> {
    let mut bits = Bits::default();
    match window {
        25.. => {
            bits.put(0x11, 8);
            bits.put(window.into(), 6);
        }
        18.. => bits.put(u32::from(window - 17) << 1 | 1, 4),
        17 => bits.put(1, 7),
        16 => bits.put(0, 1),
        _ => bits.put(u32::from(window.max(10) - 8) << 4 | 1, 7),
    }
    for part in text.chunks(1 << 16) {
        // Not the last one; its length has four digits; uncompressed.
        bits.put(0, 3);
        bits.put(u32::try_from(part.len() - 1).unwrap_or_default(), 16);
        bits.put(1, 1);
        bits.bytes(part);
    }
    // The last one, empty.
    bits.put(3, 2);
    bits.bytes(b"");
    bits.whole
}

/// Encodes a text in zstd (RFC 8878), as uncompressed blocks. `window` is the descriptor of the window size.
pub(super) fn zstd(window: u8, text: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, window];
    for block in text.chunks(1 << 10).chain([&b""[..]]) {
        let header = (block.len() << 3) | usize::from(block.is_empty());
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.extend_from_slice(block);
    }
    frame
}

/// A writer of bits, lowest bit first.
#[derive(Default)]
struct Bits {
    whole: Vec<u8>,
    rest: u64,
    count: u32,
}

impl Bits {
    fn put(&mut self, bits: u32, count: u32) {
        self.rest |= u64::from(bits) << self.count;
        self.count += count;
        while self.count >= 8 {
            self.whole.push(self.rest.to_le_bytes()[0]);
            self.rest >>= 8;
            self.count -= 8;
        }
    }

    /// Pads to the next byte, then adds these bytes.
    fn bytes(&mut self, bytes: &[u8]) {
        let padding = (8 - self.count) % 8;
        self.put(0, padding);
        self.whole.extend_from_slice(bytes);
    }
}
