//! Measures the server without a bridge: a client that writes a request to a socket and reads to the end of the body.
//! Its time is the minimum for any bridge.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::{Result, bridge::Call};

/// The end of a chunked body. The server's texts do not contain it.
const END: &[u8] = b"\r\n0\r\n\r\n";

pub(crate) struct Direct {
    socket: TcpStream,
    host: String,
    buffer: Vec<u8>,
}

impl Direct {
    /// Connects. `limit` bounds each wait for the server.
    pub(crate) fn connect(url: &str, limit: Duration) -> Result<Self> {
        let host = url.trim_start_matches("http://").split('/').next().unwrap_or_default().to_owned();
        let socket = TcpStream::connect(&host)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(limit))?;
        Ok(Self { socket, host, buffer: vec![0; 1 << 20] })
    }

    /// Makes a call. `each` gets the arriving bytes. Returns the bytes of the body as transferred.
    pub(crate) fn call(&mut self, call: &Call, until: Instant, mut each: impl FnMut(&[u8])) -> Result<u64> {
        let body = call.request(1);
        let request = format!(
            "POST /mcp HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Accept: application/json, text/event-stream\r\nContent-Length: {}\r\n\r\n{body}",
            self.host,
            body.len()
        );
        self.socket.write_all(request.as_bytes())?;
        let mut filled = 0;
        let (head, length) = loop {
            filled += self.read(filled, until)?;
            let text = self.buffer.get(..filled).unwrap_or_default();
            if let Some(end) = memchr::memmem::find(text, b"\r\n\r\n") {
                let head = String::from_utf8_lossy(text.get(..end).unwrap_or_default()).to_ascii_lowercase();
                if !head.starts_with("http/1.1 200") {
                    return Err(format!("the server said {head}").into());
                }
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<u64>().ok());
                break (end + 4, length);
            }
        };
        let mut total = 0;
        let mut tail = Vec::new();
        let mut from = head;
        loop {
            let text = self.buffer.get(from..filled).unwrap_or_default();
            total += text.len() as u64;
            each(text);
            tail.extend_from_slice(text.get(text.len().saturating_sub(END.len())..).unwrap_or_default());
            tail.drain(..tail.len().saturating_sub(END.len()));
            if length.map_or(tail == END, |length| total >= length) {
                return Ok(total);
            }
            from = 0;
            filled = self.read(0, until)?;
        }
    }

    fn read(&mut self, from: usize, until: Instant) -> Result<usize> {
        if Instant::now() > until {
            return Err("the server was too slow".into());
        }
        let read = self.socket.read(self.buffer.get_mut(from..).unwrap_or_default())?;
        if read == 0 {
            return Err("the server closed the connection".into());
        }
        Ok(read)
    }
}
