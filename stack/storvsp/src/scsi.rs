//! A SCSI disk as a pure state machine (SPC-4, SBC-3).
//!
//! [`Target::execute`] takes a command and the parameters that came with it, and returns what to answer or what to do
//! to the storage. It does no I/O and keeps nothing but what a target must remember: that its capacity changed
//! and that the initiator has not heard of it.
//!
//! Writes are done when they are in the backend, which may cache them (WCE is set); SYNCHRONIZE CACHE and FUA make them
//! durable. Reservations do not exist: their commands are refused as unknown, so that an initiator never believes
//! that it is alone.

mod inquiry;
mod mode;
mod sense;
mod transfer;

pub use self::{
    inquiry::{absent_unit, report_luns},
    sense::Sense,
    transfer::MAX_TRANSFER_BYTES,
};
use crate::backend::{Discard, IoError, Operation, Properties};

/// Operation codes (SPC-4 and SBC-3 table "commands").
mod opcode {
    pub(super) const TEST_UNIT_READY: u8 = 0x00;
    pub(super) const REQUEST_SENSE: u8 = 0x03;
    pub(super) const READ_6: u8 = 0x08;
    pub(super) const WRITE_6: u8 = 0x0a;
    pub(super) const INQUIRY: u8 = 0x12;
    pub(super) const MODE_SENSE_6: u8 = 0x1a;
    pub(super) const READ_CAPACITY_10: u8 = 0x25;
    pub(super) const READ_10: u8 = 0x28;
    pub(super) const WRITE_10: u8 = 0x2a;
    pub(super) const SYNCHRONIZE_CACHE_10: u8 = 0x35;
    pub(super) const UNMAP: u8 = 0x42;
    pub(super) const MODE_SENSE_10: u8 = 0x5a;
    pub(super) const READ_16: u8 = 0x88;
    pub(super) const WRITE_16: u8 = 0x8a;
    pub(super) const SYNCHRONIZE_CACHE_16: u8 = 0x91;
    pub(super) const WRITE_SAME_16: u8 = 0x93;
    pub(super) const SERVICE_ACTION_IN_16: u8 = 0x9e;
    pub(super) const REPORT_LUNS: u8 = 0xa0;
    pub(super) const READ_12: u8 = 0xa8;
    pub(super) const WRITE_12: u8 = 0xaa;
}

/// The service action of READ CAPACITY (16).
const READ_CAPACITY_16: u8 = 0x10;
/// Room for every command of a parallel SCSI transport, which this one imitates.
pub const CDB_BYTES: usize = 16;

/// A command, padded with zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cdb(pub [u8; CDB_BYTES]);

impl Cdb {
    /// Which command it is.
    pub fn operation(&self) -> u8 {
        self.0[0]
    }

    /// Whether it is INQUIRY, which even a unit that does not exist answers.
    pub fn is_inquiry(&self) -> bool {
        self.operation() == opcode::INQUIRY
    }

    /// Whether it is REPORT LUNS, which the target answers for all its units.
    pub fn is_report_luns(&self) -> bool {
        self.operation() == opcode::REPORT_LUNS
    }

    fn be16(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.0[at], self.0[at + 1]])
    }

    fn be32(&self, at: usize) -> u32 {
        u32::from_be_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    fn be64(&self, at: usize) -> u64 {
        u64::from(self.be32(at)) << 32 | u64::from(self.be32(at + 4))
    }
}

/// Which disk it is, for initiators that find disks again by their identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity(pub [u8; 16]);

impl Identity {
    /// The unit serial number: 32 hexadecimal digits.
    fn serial(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What the storage is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Length of a logical block in bytes: 512 or 4096.
    pub block_bytes: u32,
    /// Length of a physical block in bytes: a power of two times that. Smaller writes cost a read.
    pub physical_bytes: u32,
}

impl Default for Geometry {
    fn default() -> Self {
        Self { block_bytes: 512, physical_bytes: 4096 }
    }
}

/// How a command ended, or what it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// It is done; this is the data for the initiator, cut to what it asked for.
    Data(Vec<u8>),
    /// These operations have to be done in order; the first that moves data moves `transfer` bytes.
    Work {
        /// One after the other.
        operations: Vec<Operation>,
        /// Bytes that the initiator sends or gets.
        transfer: u32,
    },
    /// It failed (CHECK CONDITION).
    Check(Sense),
    /// It would move more data than the initiator has room for, or has given.
    Overrun,
}

/// The device of one logical unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    identity: Identity,
    geometry: Geometry,
    storage: Properties,
    /// What the initiator has to hear before its next command is done.
    attention: Option<Sense>,
}

impl Target {
    /// A disk on this storage. A rest that is no whole block is not used.
    pub fn new(identity: Identity, geometry: Geometry, storage: Properties) -> Self {
        Self { identity, geometry, storage, attention: None }
    }

    /// The storage has another length now; the initiator hears of it with its next command.
    pub fn resize(&mut self, bytes: u64) {
        if self.storage.bytes != bytes {
            self.storage.bytes = bytes;
            self.attention = Some(Sense::CAPACITY_CHANGED);
        }
    }

    /// How many bytes of parameters the command takes from the initiator; data to be written are not counted.
    pub fn parameter_bytes(&self, cdb: &Cdb) -> u32 {
        match cdb.operation() {
            opcode::UNMAP => cdb.be16(7).into(),
            opcode::WRITE_SAME_16 if !transfer::has_no_data(cdb) => self.geometry.block_bytes,
            _ => 0,
        }
    }

    /// Executes a command. `parameters` are [`Target::parameter_bytes`] bytes, and `room` is how many bytes of data
    /// the initiator gives or takes.
    pub fn execute(&mut self, cdb: &Cdb, parameters: &[u8], room: u32) -> Response {
        // SPC-4 §5.14: these are done with an attention pending, and only the last clears it.
        let quiet = [opcode::INQUIRY, opcode::REPORT_LUNS, opcode::REQUEST_SENSE];
        if !quiet.contains(&cdb.operation())
            && let Some(sense) = self.attention.take()
        {
            return Response::Check(sense);
        }
        match self.perform(cdb, parameters, room) {
            Ok(response) => response,
            Err(sense) => Response::Check(sense),
        }
    }

    fn perform(&mut self, cdb: &Cdb, parameters: &[u8], room: u32) -> Result<Response, Sense> {
        let (data, allocated) = match cdb.operation() {
            opcode::TEST_UNIT_READY => (Vec::new(), 0),
            opcode::REQUEST_SENSE => (self.request_sense(cdb)?, cdb.0[4].into()),
            opcode::INQUIRY => (self.inquiry(cdb)?, cdb.be16(3).into()),
            opcode::MODE_SENSE_6 => (self.mode_sense_6(cdb)?, cdb.0[4].into()),
            opcode::MODE_SENSE_10 => (self.mode_sense_10(cdb)?, cdb.be16(7).into()),
            opcode::READ_CAPACITY_10 => (self.read_capacity_10()?, 8),
            opcode::SERVICE_ACTION_IN_16 if cdb.0[1] & 0x1f == READ_CAPACITY_16 => {
                (self.read_capacity_16(), cdb.be32(10))
            }
            _ => return self.transfer(cdb, parameters, room),
        };
        let most = room.min(allocated) as usize;
        let mut data = data;
        data.truncate(most);
        Ok(Response::Data(data))
    }

    /// REQUEST SENSE (SPC-4 §6.39): what is pending, in fixed format; descriptor format is not spoken.
    fn request_sense(&mut self, cdb: &Cdb) -> Result<Vec<u8>, Sense> {
        if cdb.0[1] & 1 != 0 {
            return Err(Sense::INVALID_FIELD);
        }
        Ok(self.attention.take().unwrap_or(Sense::NONE).fixed().to_vec())
    }

    /// The sense for an operation that the storage could not do.
    pub fn failed(operation: &Operation, error: IoError) -> Sense {
        match (error, operation) {
            (IoError::Full, _) => Sense::SPACE_EXHAUSTED,
            (_, Operation::Read { .. }) => Sense::READ_ERROR,
            _ => Sense::WRITE_ERROR,
        }
    }

    fn blocks(&self) -> u64 {
        self.storage.bytes / u64::from(self.geometry.block_bytes)
    }

    fn is_thin(&self) -> bool {
        !self.storage.read_only && self.storage.discard != Discard::Unsupported
    }

    fn discarded_reads_zero(&self) -> bool {
        self.storage.discard == Discard::Zeroes
    }

    /// READ CAPACITY (10) (SBC-3 §5.15).
    fn read_capacity_10(&self) -> Result<Vec<u8>, Sense> {
        let last = self.blocks().checked_sub(1).ok_or(Sense::LBA_OUT_OF_RANGE)?;
        let last = u32::try_from(last).unwrap_or(u32::MAX);
        Ok([last.to_be_bytes(), self.geometry.block_bytes.to_be_bytes()].concat())
    }

    /// READ CAPACITY (16) (SBC-3 §5.16).
    fn read_capacity_16(&self) -> Vec<u8> {
        /// Logical block provisioning is managed.
        const LBPME: u8 = 0x80;
        /// Unmapped blocks read as zeros.
        const LBPRZ: u8 = 0x40;
        let mut data = vec![0; 32];
        data[..8].copy_from_slice(&self.blocks().saturating_sub(1).to_be_bytes());
        data[8..12].copy_from_slice(&self.geometry.block_bytes.to_be_bytes());
        data[13] = self.blocks_per_physical().trailing_zeros().to_le_bytes()[0] & 0xf;
        if self.is_thin() {
            data[14] = if self.discarded_reads_zero() { LBPME | LBPRZ } else { LBPME };
        }
        data
    }

    fn blocks_per_physical(&self) -> u32 {
        (self.geometry.physical_bytes / self.geometry.block_bytes).max(1)
    }
}

#[cfg(test)]
mod tests;
