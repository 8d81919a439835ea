//! The packets of vstor: 64 bytes in either direction (Linux `drivers/scsi/storvsc_drv.c: struct vstor_packet`).

use vmbus::guid::Guid;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What a SCSI controller is (`HV_SCSI_GUID`).
pub const INTERFACE: Guid = Guid::new(0xba61_63d9, 0x04a1, 0x4d29, 0xb605, 0x72e2_ffb1_dc7f);

/// What a packet wants (`enum vstor_packet_operation`).
pub mod operation {
    #![expect(missing_docs, reason = "they are named as in Linux's driver")]
    pub const COMPLETE_IO: u32 = 1;
    pub const REMOVE_DEVICE: u32 = 2;
    pub const EXECUTE_SRB: u32 = 3;
    pub const RESET_LUN: u32 = 4;
    pub const RESET_ADAPTER: u32 = 5;
    pub const RESET_BUS: u32 = 6;
    pub const BEGIN_INITIALIZATION: u32 = 7;
    pub const END_INITIALIZATION: u32 = 8;
    pub const QUERY_PROTOCOL_VERSION: u32 = 9;
    pub const QUERY_PROPERTIES: u32 = 10;
    pub const ENUMERATE_BUS: u32 = 11;
    pub const CREATE_SUB_CHANNELS: u32 = 13;
}

/// Versions that are spoken: those that Linux asks for (`protocol_version`), major in the high byte.
pub const VERSIONS: [u16; 3] = [0x0602, 0x0600, 0x0501];
/// The property that says that there may be sub-channels (`STORAGE_CHANNEL_SUPPORTS_MULTI_CHANNEL`).
pub const SUPPORTS_MULTI_CHANNEL: u32 = 1;

/// Statuses of a packet (NTSTATUS); Linux looks whether it is 0.
pub mod status {
    /// It was done.
    pub const SUCCESS: u32 = 0;
    /// `STATUS_INVALID_PARAMETER`.
    pub const INVALID_PARAMETER: u32 = 0xc000_000d;
    /// `STATUS_NOT_SUPPORTED`.
    pub const NOT_SUPPORTED: u32 = 0xc000_00bb;
    /// `STATUS_REVISION_MISMATCH`.
    pub const REVISION_MISMATCH: u32 = 0xc000_0059;
    /// `STATUS_INVALID_DEVICE_STATE`.
    pub const INVALID_DEVICE_STATE: u32 = 0xc000_0184;
}

/// How a SCSI request ended, as the port sees it (`SRB_STATUS_*`).
pub mod srb_status {
    /// Well.
    pub const SUCCESS: u8 = 0x01;
    /// The device reported an error.
    pub const ERROR: u8 = 0x04;
    /// The request makes no sense.
    pub const INVALID_REQUEST: u8 = 0x06;
    /// The command wanted to move more than the request has room for.
    pub const DATA_OVERRUN: u8 = 0x12;
    /// Nothing is there.
    pub const NO_DEVICE: u8 = 0x08;
    /// There is no unit of this number.
    pub const INVALID_LUN: u8 = 0x20;
    /// Together with another: the sense is in the request.
    pub const AUTOSENSE_VALID: u8 = 0x80;
}

/// A packet.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Packet {
    /// One of [`operation`].
    pub operation: u32,
    /// Whether a completion is wanted; the flag of the ring's packet says the same.
    pub flags: u32,
    /// One of [`status`].
    pub status: u32,
    /// What the operation needs.
    pub payload: [u8; 52],
}

/// A SCSI request (`struct vmscsi_request`).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Srb {
    /// Its own length in bytes.
    pub length: u16,
    /// One of [`srb_status`].
    pub srb_status: u8,
    /// The device's status (SAM-5 §5.3).
    pub scsi_status: u8,
    /// Linux's own number of the controller.
    pub port: u8,
    /// Bus of the controller.
    pub path: u8,
    /// Target on that bus.
    pub target: u8,
    /// Logical unit of that target.
    pub lun: u8,
    /// Length of the command.
    pub cdb_length: u8,
    /// Room for sense, and then its length.
    pub sense_length: u8,
    /// [`data_in`].
    pub data_in: u8,
    /// Of no meaning.
    pub reserved: u8,
    /// Length of the data in bytes, and then how many were moved.
    pub data_bytes: u32,
    /// The command, and then the sense.
    pub cdb_or_sense: [u8; 20],
    /// Of no meaning.
    pub reserved_2: u16,
    /// Queue tag, of no meaning here.
    pub queue_tag: u8,
    /// Queue action, of no meaning here.
    pub queue_action: u8,
    /// Flags for the port driver.
    pub flags: u32,
    /// After how many seconds the driver loses patience.
    pub timeout_s: u32,
    /// Of no meaning here.
    pub sort_key: u32,
}

/// Where the data of a request goes (`enum storvsc_request_type`).
pub mod data_in {
    /// To the device.
    pub const WRITE: u8 = 0;
    /// From the device.
    pub const READ: u8 = 1;
}

/// The answer to QUERY_PROPERTIES (`struct vmstorage_channel_properties`).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Properties {
    /// Of no meaning.
    pub reserved: u32,
    /// The most sub-channels.
    pub max_subchannels: u16,
    /// Of no meaning.
    pub reserved_2: u16,
    /// [`SUPPORTS_MULTI_CHANNEL`].
    pub flags: u32,
    /// The most data of one request in bytes.
    pub max_transfer_bytes: u32,
    /// Of no meaning.
    pub reserved_3: [u32; 2],
}

const _: () = {
    assert!(size_of::<Packet>() == 64);
    assert!(size_of::<Srb>() == 52);
    assert!(size_of::<Properties>() == 24);
};
