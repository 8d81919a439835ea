//! The messages of the control plane as they lie in a SynIC message: a header of 8 bytes, then a body.
//!
//! Layouts: Linux `include/linux/hyperv.h: struct vmbus_channel_*`; those of version 6.0 from OpenVMM's
//! `vmbus_core`. Numbers are little endian, as the machine's own.

mod incoming;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use self::incoming::{Incoming, Malformed};
use crate::guid::Guid;

/// The most bytes of a message (TLFS: the payload of a SynIC message).
pub const MAX_MESSAGE_BYTES: usize = 240;
/// The type of all SynIC messages that carry a message of this protocol, both ways (Linux `vmbus_post_msg`,
/// `vmbus_on_msg_dpc`: any type but 0 will do; Hyper-V uses 1).
pub const SYNIC_MESSAGE_TYPE: u32 = 1;
/// The connection to which guests up to version 4.1 post (`VMBUS_MESSAGE_CONNECTION_ID`).
pub const MESSAGE_CONNECTION: u32 = 1;
/// The connection to which guests from version 5.0 on post (`VMBUS_MESSAGE_CONNECTION_ID_4`).
pub const MESSAGE_CONNECTION_5: u32 = 4;
/// The SINT of all messages and signals to guests that do not choose one (`VMBUS_MESSAGE_SINT`).
pub const DEFAULT_SINT: u8 = 2;
/// The most channels: each has a bit among the event flags of one SINT (TLFS: 2048 flags). Flag 0 is not a
/// channel's (Linux `vmbus_chan_sched`).
pub const CHANNELS: u32 = 2048;
/// Added to a channel's id, this is the connection that the guest signals. It keeps the ids of signals apart from
/// those of messages.
pub const SIGNAL_CONNECTION_BASE: u32 = 0x2000;
/// Connection ids have this many bits (TLFS: `HV_CONNECTION_ID`).
pub const CONNECTION_ID_BITS: u32 = 24;

/// The answer to what went well.
pub const STATUS_SUCCESS: u32 = 0;
/// The answer to what did not (`STATUS_UNSUCCESSFUL`); guests look only whether it is 0.
pub const STATUS_UNSUCCESSFUL: u32 = 0xc000_0001;
/// The answer to a socket that nobody listens to (`STATUS_CONNECTION_REFUSED`).
pub const STATUS_CONNECTION_REFUSED: u32 = 0xc000_0236;

/// Types of messages (`CHANNELMSG_*`).
pub mod kind {
    #![expect(missing_docs, reason = "they are named as in Linux's header")]
    pub const OFFER_CHANNEL: u32 = 1;
    pub const RESCIND_CHANNEL_OFFER: u32 = 2;
    pub const REQUEST_OFFERS: u32 = 3;
    pub const ALL_OFFERS_DELIVERED: u32 = 4;
    pub const OPEN_CHANNEL: u32 = 5;
    pub const OPEN_CHANNEL_RESULT: u32 = 6;
    pub const CLOSE_CHANNEL: u32 = 7;
    pub const GPADL_HEADER: u32 = 8;
    pub const GPADL_BODY: u32 = 9;
    pub const GPADL_CREATED: u32 = 10;
    pub const GPADL_TEARDOWN: u32 = 11;
    pub const GPADL_TORNDOWN: u32 = 12;
    pub const RELID_RELEASED: u32 = 13;
    pub const INITIATE_CONTACT: u32 = 14;
    pub const VERSION_RESPONSE: u32 = 15;
    pub const UNLOAD: u32 = 16;
    pub const UNLOAD_RESPONSE: u32 = 17;
    pub const TL_CONNECT_REQUEST: u32 = 21;
    pub const MODIFY_CHANNEL: u32 = 22;
    pub const TL_CONNECT_RESULT: u32 = 23;
    pub const MODIFY_CHANNEL_RESPONSE: u32 = 24;
}

/// A version of the protocol: major in the high half, minor in the low half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u32);

impl Version {
    /// Windows Server 2012 R2: reconnection, and the VP of messages is the guest's choice.
    pub const V3_0: Self = Self(0x3_0000);
    /// Windows Server 2016: sockets.
    pub const V4_0: Self = Self(0x4_0000);
    /// MODIFYCHANNEL.
    pub const V4_1: Self = Self(0x4_0001);
    /// The SINT of messages is the guest's choice, and their connection the host's.
    pub const V5_0: Self = Self(0x5_0000);
    /// As 5.0 for what is spoken here.
    pub const V5_1: Self = Self(0x5_0001);
    /// Socket requests may have a silo.
    pub const V5_2: Self = Self(0x5_0002);
    /// MODIFYCHANNEL is answered.
    pub const V5_3: Self = Self(0x5_0003);
    /// Features are negotiated.
    pub const V6_0: Self = Self(0x6_0000);

    /// All that are spoken. Linux asks for the newest that it knows and then for older ones
    /// (`drivers/hv/connection.c: vmbus_versions`): 6.1 from 5.3 to 2.4, 7.3 from 6.0 to 4.0.
    pub const SUPPORTED: [Self; 8] =
        [Self::V3_0, Self::V4_0, Self::V4_1, Self::V5_0, Self::V5_1, Self::V5_2, Self::V5_3, Self::V6_0];

    /// The version of this number, if it is spoken.
    pub fn supported(number: u32) -> Option<Self> {
        Self::SUPPORTED.into_iter().find(|version| version.0 == number)
    }

    /// Its number on the wire.
    pub fn number(self) -> u32 {
        self.0
    }
}

/// Features of version 6.0 that both sides must have to be used (OpenVMM `FeatureFlags`).
pub mod feature {
    /// OPENCHANNEL says which connection and which event flag the channel's signals use.
    pub const GUEST_SPECIFIED_SIGNALS: u32 = 0x1;
    /// INITIATE_CONTACT ends with a GUID that names the guest's driver.
    pub const CLIENT_ID: u32 = 0x8;
    /// Those that are spoken here. Linux 7.x asks for confidential channels (0x10) alone, which only mean
    /// something in an isolated partition.
    pub const SUPPORTED: u32 = GUEST_SPECIFIED_SIGNALS | CLIENT_ID;
}

/// What each message begins with.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// One of [`kind`].
    pub kind: u32,
    /// Of no meaning.
    pub padding: u32,
}

/// Body of INITIATE_CONTACT.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct InitiateContact {
    /// The version that the guest wants.
    pub version: u32,
    /// The VP that gets the messages.
    pub target_vp: u32,
    /// Up to 4.1 the page of the old interrupt bitmap, which nobody uses since version 2.4. From 5.0 on the SINT
    /// in the lowest byte, the VTL in the next, features of 6.0 in the high half.
    pub target_info: u64,
    /// Page of the monitor that the host triggers, or 0.
    pub parent_to_child_monitor: u64,
    /// Page of the monitor that the guest triggers, or 0.
    pub child_to_parent_monitor: u64,
}

/// Body of VERSION_RESPONSE.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VersionResponse {
    /// 1 if the version is spoken.
    pub supported: u8,
    /// Why there is no connection although it is: 0 if there is.
    pub state: u8,
    /// Of no meaning.
    pub padding: u16,
    /// From 5.0 on, the connection to which the guest posts from now on.
    pub connection: u32,
}

/// Body of OFFERCHANNEL (`vmbus_channel_offer` and what follows it).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct OfferChannel {
    /// What the device is.
    pub interface: Guid,
    /// Which of its kind it is.
    pub instance: Guid,
    /// Of no meaning.
    pub reserved: [u32; 4],
    /// [`offer_flag`].
    pub flags: u16,
    /// How much MMIO the device needs, in MiB.
    pub mmio_megabytes: u16,
    /// The device's own.
    pub user_defined: [u8; 120],
    /// 0 for the device's first channel.
    pub subchannel: u16,
    /// Of no meaning here.
    pub reserved_2: u16,
    /// Its id.
    pub channel: u32,
    /// Bit of the monitor pages, if `monitor_allocated`.
    pub monitor: u8,
    /// Whether signals to the host go by the monitor page.
    pub monitor_allocated: u8,
    /// Whether signals to the host go by the connection alone, and not by the old bitmap as well.
    pub dedicated: u16,
    /// The connection that the guest signals.
    pub connection: u32,
}

/// Flags of an offer (`VMBUS_CHANNEL_*`).
pub mod offer_flag {
    /// The device is to be enumerated.
    pub const ENUMERATE_DEVICE_INTERFACE: u16 = 0x1;
    /// The channel is a pipe.
    pub const NAMED_PIPE: u16 = 0x10;
    /// The channel is a socket.
    pub const SOCKET: u16 = 0x2000;
}

/// Body of OPENCHANNEL.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct OpenChannel {
    /// The channel.
    pub channel: u32,
    /// Repeated in the result.
    pub open_id: u32,
    /// The memory of both rings.
    pub ring_gpadl: u32,
    /// The VP that gets the signals; [`NO_TARGET_VP`] for none.
    pub target_vp: u32,
    /// First page of the ring to the guest.
    pub downstream_page: u32,
    /// The device's own.
    pub user_data: [u8; 120],
}

/// The VP of a channel that wants no signals (OpenVMM `VP_INDEX_DISABLE_INTERRUPT`).
pub const NO_TARGET_VP: u32 = u32::MAX;

/// What follows [`OpenChannel`] with [`feature::GUEST_SPECIFIED_SIGNALS`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct OpenSignals {
    /// The connection that the guest signals; 0 for that of the offer.
    pub connection: u32,
    /// The flag by which the host signals; 0 for the channel's id.
    pub event_flag: u16,
    /// Of no meaning in a partition without VTLs.
    pub flags: u16,
}

/// Body of OPENCHANNEL_RESULT.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct OpenResult {
    /// The channel.
    pub channel: u32,
    /// As in the request.
    pub open_id: u32,
    /// [`STATUS_SUCCESS`] or not.
    pub status: u32,
}

/// Body of GPADL_HEADER, before the values.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GpadlHeader {
    /// The channel.
    pub channel: u32,
    /// The guest's name for it.
    pub gpadl: u32,
    /// Bytes of all ranges, those in further messages included.
    pub bytes: u16,
    /// How many ranges there are.
    pub ranges: u16,
}

/// Body of GPADL_BODY, before the values.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GpadlBody {
    /// Counts the messages; Linux leaves it at 0, so it says nothing.
    pub number: u32,
    /// Which.
    pub gpadl: u32,
}

/// Body of GPADL_CREATED.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GpadlCreated {
    /// The channel.
    pub channel: u32,
    /// Which.
    pub gpadl: u32,
    /// [`STATUS_SUCCESS`] or not.
    pub status: u32,
}

/// Body of GPADL_TEARDOWN.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GpadlTeardown {
    /// The channel.
    pub channel: u32,
    /// Which.
    pub gpadl: u32,
}

/// Body of TL_CONNECT_REQUEST, before the silo of version 5.2.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TlConnectRequest {
    /// The guest's end.
    pub endpoint: Guid,
    /// The service of the host.
    pub service: Guid,
}

/// Body of TL_CONNECT_RESULT.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TlConnectResult {
    /// As in the request.
    pub endpoint: Guid,
    /// As in the request.
    pub service: Guid,
    /// [`STATUS_CONNECTION_REFUSED`].
    pub status: u32,
}

/// Body of MODIFYCHANNEL.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ModifyChannel {
    /// The channel.
    pub channel: u32,
    /// The VP that gets its signals from now on.
    pub target_vp: u32,
}

/// Body of MODIFYCHANNEL_RESPONSE.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ModifyChannelResponse {
    /// The channel.
    pub channel: u32,
    /// [`STATUS_SUCCESS`] or not.
    pub status: u32,
}

const _: () = {
    assert!(size_of::<InitiateContact>() == 32);
    assert!(size_of::<VersionResponse>() == 8);
    assert!(size_of::<OfferChannel>() == 188);
    assert!(size_of::<OpenChannel>() == 140);
    assert!(size_of::<OpenSignals>() == 8);
    assert!(size_of::<GpadlHeader>() == 12);
    assert!(size_of::<TlConnectResult>() == 36);
};

/// A message of this type and body.
pub fn message(kind: u32, body: &(impl IntoBytes + Immutable + ?Sized)) -> Vec<u8> {
    let header = Header { kind, padding: 0 };
    [header.as_bytes(), body.as_bytes()].concat()
}
