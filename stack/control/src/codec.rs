//! Frames: a little-endian `u32` length, then that many bytes of JSON.
//!
//! [`Decoder`] takes bytes as they come and never blocks, for the poll loops; [`send`] and [`receive`] block,
//! for a client that waits for one answer. A frame that is too long or does not parse ends the connection:
//! there is no way to find the next frame after it.

use std::io::{self, Read, Write};

use serde::{Serialize, de::DeserializeOwned};

/// Longest frame in bytes, so that a broken peer cannot make this side hold more.
pub const MAX_FRAME: usize = 1 << 20;

const HEADER: usize = 4;

/// One message as bytes.
///
/// # Errors
///
/// `InvalidData` when the message is longer than [`MAX_FRAME`].
pub fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; HEADER];
    serde_json::to_writer(&mut frame, message)?;
    let len = frame.len() - HEADER;
    if len > MAX_FRAME {
        return Err(too_long(len));
    }
    frame[..HEADER].copy_from_slice(&u32::try_from(len).map_err(|_| too_long(len))?.to_le_bytes());
    Ok(frame)
}

/// Collects bytes until they make a message.
#[derive(Debug, Default)]
pub struct Decoder {
    pending: Vec<u8>,
}

impl Decoder {
    /// Adds bytes that arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next whole message, or `None` while bytes are missing.
    ///
    /// # Errors
    ///
    /// `InvalidData` for a frame that is too long or is not a `T`.
    pub fn message<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let Some((header, rest)) = self.pending.split_first_chunk::<HEADER>() else { return Ok(None) };
        let len = u32::from_le_bytes(*header) as usize;
        if len > MAX_FRAME {
            return Err(too_long(len));
        }
        let Some(body) = rest.get(..len) else { return Ok(None) };
        let message = serde_json::from_slice(body)?;
        self.pending.drain(..HEADER + len);
        Ok(Some(message))
    }
}

/// Writes one message.
///
/// # Errors
///
/// Those of [`encode`] and of the writer.
pub fn send<T: Serialize>(mut to: impl Write, message: &T) -> io::Result<()> {
    to.write_all(&encode(message)?)
}

/// Reads one message.
///
/// # Errors
///
/// Those of the reader, `UnexpectedEof` when the stream ends first, `InvalidData` as in [`Decoder::message`].
pub fn receive<T: DeserializeOwned>(mut from: impl Read) -> io::Result<T> {
    let mut header = [0; HEADER];
    from.read_exact(&mut header)?;
    let len = u32::from_le_bytes(header) as usize;
    if len > MAX_FRAME {
        return Err(too_long(len));
    }
    let mut body = vec![0; len];
    from.read_exact(&mut body)?;
    Ok(serde_json::from_slice(&body)?)
}

fn too_long(len: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a message of {len} bytes is longer than {MAX_FRAME}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Request, Response, State, VmStatus};

    fn request() -> Request {
        Request::Stop { name: "web".parse().unwrap(), timeout_s: 9 }
    }

    #[test]
    fn message_survives_arriving_byte_by_byte() {
        let mut decoder = Decoder::default();
        let mut bytes = encode(&request()).unwrap();
        bytes.extend(encode(&Request::List).unwrap());
        let mut got = Vec::new();
        for byte in bytes {
            decoder.push(&[byte]);
            got.extend(decoder.message::<Request>().unwrap());
        }
        assert_eq!(got, [request(), Request::List]);
        assert_eq!(decoder.message::<Request>().unwrap(), None);
    }

    #[test]
    fn blocking_and_polling_sides_agree() {
        let mut wire = Vec::new();
        send(&mut wire, &request()).unwrap();
        assert_eq!(receive::<Request>(wire.as_slice()).unwrap(), request());
    }

    #[test]
    fn frame_that_claims_too_much_is_an_error_not_an_allocation() {
        let wire = u32::MAX.to_le_bytes();
        let mut decoder = Decoder::default();
        decoder.push(&wire);
        assert_eq!(decoder.message::<Request>().unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(receive::<Request>(&wire[..]).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn junk_is_an_error() {
        let mut decoder = Decoder::default();
        decoder.push(&[2, 0, 0, 0, b'h', b'i']);
        assert_eq!(decoder.message::<Request>().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn status_is_flat_json_with_the_reason_beside_the_state() {
        let status = VmStatus {
            name: "a".parse().unwrap(),
            state: State::Failed { reason: "why".into() },
            vps: 1,
            memory_mib: 64,
            uptime_s: None,
            pid: Some(7),
            exits: 3,
            resets: 0,
            disks: Vec::new(),
            processors: Vec::new(),
        };
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!((json["state"].as_str(), json["reason"].as_str()), (Some("failed"), Some("why")));
        let frame = encode(&Response::List(vec![status.clone()])).unwrap();
        let mut decoder = Decoder::default();
        decoder.push(&frame);
        assert_eq!(decoder.message::<Response>().unwrap(), Some(Response::List(vec![status])));
    }
}
