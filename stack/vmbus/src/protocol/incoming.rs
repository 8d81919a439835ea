//! Messages of the guest, taken apart.

use std::fmt;

use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::{
    GpadlBody, GpadlHeader, GpadlTeardown, Header, InitiateContact, MAX_MESSAGE_BYTES, ModifyChannel,
    OpenChannel, OpenSignals, TlConnectRequest, kind,
};
use crate::guid::Guid;

/// Why a message says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// It is too short for its type, or too long for any.
    Length {
        /// Its type, or 0 if not even that is known.
        kind: u32,
        /// Its length in bytes.
        bytes: usize,
    },
    /// No guest sends this type.
    Kind(u32),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { kind, bytes } => write!(f, "a message of type {kind} has {bytes} bytes"),
            Self::Kind(kind) => write!(f, "messages of type {kind} are unknown"),
        }
    }
}

/// A message of the guest. It borrows the bytes, which must be a copy that the guest cannot change.
#[derive(Clone, Copy, Debug)]
pub enum Incoming<'a> {
    /// The guest wants a connection; with its client id, if one is there.
    InitiateContact(InitiateContact, Option<Guid>),
    /// It wants to know the channels.
    RequestOffers,
    /// It opens a channel; with its wishes for signals, if they are there.
    OpenChannel(OpenChannel, Option<OpenSignals>),
    /// It closes the channel of this id.
    CloseChannel(u32),
    /// It describes memory; the values that fitted in.
    GpadlHeader(GpadlHeader, &'a [u8]),
    /// It goes on describing.
    GpadlBody(GpadlBody, &'a [u8]),
    /// It wants memory back.
    GpadlTeardown(GpadlTeardown),
    /// It has forgotten the channel of this id.
    RelidReleased(u32),
    /// It wants no connection any more.
    Unload,
    /// It connects a socket; with the silo, if one is there.
    TlConnectRequest(TlConnectRequest, Option<Guid>),
    /// It wants a channel's signals elsewhere.
    ModifyChannel(ModifyChannel),
}

impl<'a> Incoming<'a> {
    /// Takes a message apart. Bytes after a message of fixed length are ignored, since newer versions append
    /// to it; the additions that are known are optional.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let wrong = |kind| Malformed::Length { kind, bytes: bytes.len() };
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Err(wrong(0));
        }
        let (header, body) = Header::read_from_prefix(bytes).map_err(|_| wrong(0))?;
        Self::parse_body(header.kind, body).unwrap_or(Err(wrong(header.kind)))
    }

    /// `None` if the body is too short.
    fn parse_body(kind: u32, body: &'a [u8]) -> Option<Result<Self, Malformed>> {
        Some(Ok(match kind {
            kind::INITIATE_CONTACT => {
                let (contact, rest) = split(body)?;
                Self::InitiateContact(contact, split(rest).map(|(client, _)| client))
            }
            kind::REQUEST_OFFERS => Self::RequestOffers,
            kind::OPEN_CHANNEL => {
                let (open, rest) = split(body)?;
                Self::OpenChannel(open, split(rest).map(|(signals, _)| signals))
            }
            kind::CLOSE_CHANNEL => Self::CloseChannel(split(body)?.0),
            kind::GPADL_HEADER => {
                let (header, values) = split(body)?;
                Self::GpadlHeader(header, values)
            }
            kind::GPADL_BODY => {
                let (header, values) = split(body)?;
                Self::GpadlBody(header, values)
            }
            kind::GPADL_TEARDOWN => Self::GpadlTeardown(split(body)?.0),
            kind::RELID_RELEASED => Self::RelidReleased(split(body)?.0),
            kind::UNLOAD => Self::Unload,
            kind::TL_CONNECT_REQUEST => {
                let (request, rest) = split(body)?;
                Self::TlConnectRequest(request, split(rest).map(|(silo, _)| silo))
            }
            kind::MODIFY_CHANNEL => Self::ModifyChannel(split(body)?.0),
            other => return Some(Err(Malformed::Kind(other))),
        }))
    }
}

fn split<T: FromBytes + KnownLayout + Immutable>(bytes: &[u8]) -> Option<(T, &[u8])> {
    T::read_from_prefix(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::message;
    use proptest::{collection::vec, prelude::*};

    #[test]
    fn messages_shorter_than_their_type_are_malformed() {
        let shortest = [
            (kind::INITIATE_CONTACT, 32),
            (kind::REQUEST_OFFERS, 0),
            (kind::OPEN_CHANNEL, 140),
            (kind::CLOSE_CHANNEL, 4),
            (kind::GPADL_HEADER, 12),
            (kind::GPADL_BODY, 8),
            (kind::GPADL_TEARDOWN, 8),
            (kind::RELID_RELEASED, 4),
            (kind::UNLOAD, 0),
            (kind::TL_CONNECT_REQUEST, 32),
            (kind::MODIFY_CHANNEL, 8),
        ];
        for (kind, body) in shortest {
            let bytes = message(kind, &vec![0u8; body][..]);
            assert!(Incoming::parse(&bytes).is_ok(), "{kind}");
            let short = &bytes[..bytes.len() - 1];
            let kind = if body == 0 { 0 } else { kind };
            let expected = Malformed::Length { kind, bytes: short.len() };
            assert_eq!(Incoming::parse(short).err(), Some(expected));
        }
    }

    #[test]
    fn messages_that_only_a_host_sends_are_refused() {
        for kind in [0, 1, 2, 4, 6, 10, 12, 15, 17, 18, 19, 20, 23, 24, 25, u32::MAX] {
            let bytes = message(kind, &[0u8; 200][..]);
            assert_eq!(Incoming::parse(&bytes).err(), Some(Malformed::Kind(kind)));
        }
    }

    #[test]
    fn what_newer_versions_append_is_optional() {
        let contact = message(kind::INITIATE_CONTACT, &[[1u8; 16]; 3]);
        let parsed = Incoming::parse(&contact);
        assert!(matches!(parsed, Ok(Incoming::InitiateContact(_, Some(Guid([1, ..]))))));
        assert!(matches!(Incoming::parse(&contact[..40]), Ok(Incoming::InitiateContact(_, None))));
        let open = message(kind::OPEN_CHANNEL, &[2u8; 148]);
        let parsed = Incoming::parse(&open);
        assert!(matches!(parsed, Ok(Incoming::OpenChannel(_, Some(OpenSignals { event_flag: 0x202, .. })))));
        assert!(matches!(Incoming::parse(&open[..148]), Ok(Incoming::OpenChannel(_, None))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_not(bytes in vec(any::<u8>(), 0..300), kind in 0u32..30) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_chunk_mut() {
                *first = kind.to_le_bytes();
            }
            let _ = Incoming::parse(&bytes);
        }
    }
}
