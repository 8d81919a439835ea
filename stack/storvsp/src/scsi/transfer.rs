//! Commands that touch the storage: reading, writing, flushing, unmapping.

use super::{Cdb, Response, Sense, Target, opcode};
use crate::backend::Operation;

/// The most bytes of one request's data. Linux makes requests of at most 1280 KiB by default; 256 pages and their
/// numbers fit well into a ring packet.
pub const MAX_TRANSFER_BYTES: u32 = 1 << 20;
/// The most ranges of one UNMAP: their list is below 4 KiB, and each is a call to the storage.
pub(super) const MAX_UNMAP_DESCRIPTORS: u32 = 128;
/// The most bytes that one UNMAP discards. Holes cost little.
const MAX_UNMAP_BYTES: u64 = 1 << 30;
/// The most bytes of one WRITE SAME, which may have to be written one after the other.
const MAX_WRITE_SAME_BYTES: u32 = 16 << 20;

/// Bit of byte 1: the data are to be on the medium.
const FUA: u8 = 0x08;
/// Bits of byte 1: protection information, which there is none of.
const PROTECT: u8 = 0xe0;
/// Bit of byte 1 of UNMAP and WRITE SAME: blocks are to be anchored, which nobody can.
const UNMAP_ANCHOR: u8 = 0x01;
const WRITE_SAME_ANCHOR: u8 = 0x10;
/// Bit of byte 1 of WRITE SAME: the blocks may be unmapped.
const WRITE_SAME_UNMAP: u8 = 0x08;
/// Bit of byte 1 of WRITE SAME: there is no block of data, and zeros are meant.
const NDOB: u8 = 0x01;

/// Whether a WRITE SAME comes without its block.
pub(super) fn has_no_data(cdb: &Cdb) -> bool {
    cdb.0[1] & NDOB != 0
}

impl Target {
    pub(super) fn transfer(&self, cdb: &Cdb, parameters: &[u8], room: u32) -> Result<Response, Sense> {
        match cdb.operation() {
            opcode::READ_6 | opcode::READ_10 | opcode::READ_12 | opcode::READ_16 => {
                self.read(&self.access(cdb)?, room)
            }
            opcode::WRITE_6 | opcode::WRITE_10 | opcode::WRITE_12 | opcode::WRITE_16 => {
                self.write(&self.access(cdb)?, room)
            }
            opcode::SYNCHRONIZE_CACHE_10 => self.flush(cdb.be32(2).into(), cdb.be16(7).into()),
            opcode::SYNCHRONIZE_CACHE_16 => self.flush(cdb.be64(2), cdb.be32(10).into()),
            opcode::UNMAP => self.unmap(cdb, parameters),
            opcode::WRITE_SAME_16 => self.write_same(cdb, parameters),
            // All reservations are here too.
            _ => Err(Sense::INVALID_OPERATION),
        }
    }

    /// Which blocks a READ or WRITE names (SBC-3 §5.7 to §5.12, §5.32 to §5.36).
    fn access(&self, cdb: &Cdb) -> Result<Access, Sense> {
        let (lba, blocks, flags) = match cdb.operation() {
            opcode::READ_6 | opcode::WRITE_6 => {
                let blocks = if cdb.0[4] == 0 { 256 } else { cdb.0[4].into() };
                (u64::from(cdb.be32(0) & 0x1f_ffff), blocks, 0)
            }
            opcode::READ_10 | opcode::WRITE_10 => (cdb.be32(2).into(), cdb.be16(7).into(), cdb.0[1]),
            opcode::READ_12 | opcode::WRITE_12 => (cdb.be32(2).into(), cdb.be32(6), cdb.0[1]),
            _ => (cdb.be64(2), cdb.be32(10), cdb.0[1]),
        };
        if flags & PROTECT != 0 {
            return Err(Sense::INVALID_FIELD);
        }
        let (offset, bytes) = self.locate(lba, blocks.into())?;
        let bytes = u32::try_from(bytes).ok().filter(|bytes| *bytes <= MAX_TRANSFER_BYTES);
        let bytes = bytes.ok_or(Sense::INVALID_FIELD)?;
        Ok(Access { offset, bytes, fua: flags & FUA != 0 })
    }

    /// Offset and length in bytes of blocks that must all exist.
    fn locate(&self, lba: u64, blocks: u64) -> Result<(u64, u64), Sense> {
        let end = lba.checked_add(blocks).filter(|end| *end <= self.blocks());
        end.ok_or(Sense::LBA_OUT_OF_RANGE)?;
        let block_bytes = u64::from(self.geometry.block_bytes);
        Ok((lba * block_bytes, blocks * block_bytes))
    }

    /// With FUA the medium has to have what is read (SBC-3 §5.8).
    fn read(&self, access: &Access, room: u32) -> Result<Response, Sense> {
        let Access { offset, bytes, fua } = *access;
        let read = Operation::Read { offset, bytes: bytes.into() };
        let operations = if fua { vec![Operation::Flush, read] } else { vec![read] };
        Ok(moves(operations, bytes, room))
    }

    fn write(&self, access: &Access, room: u32) -> Result<Response, Sense> {
        self.check_writable()?;
        let Access { offset, bytes, fua } = *access;
        let write = Operation::Write { offset, bytes: bytes.into() };
        let operations = if fua { vec![write, Operation::Flush] } else { vec![write] };
        Ok(moves(operations, bytes, room))
    }

    fn check_writable(&self) -> Result<(), Sense> {
        if self.storage.read_only { Err(Sense::WRITE_PROTECTED) } else { Ok(()) }
    }

    /// SYNCHRONIZE CACHE (SBC-3 §5.22): of everything, which includes the blocks that are named.
    fn flush(&self, lba: u64, blocks: u64) -> Result<Response, Sense> {
        self.locate(lba, blocks)?;
        Ok(Response::Work { operations: vec![Operation::Flush], transfer: 0 })
    }

    /// UNMAP (SBC-3 §5.28).
    fn unmap(&self, cdb: &Cdb, parameters: &[u8]) -> Result<Response, Sense> {
        const HEADER_BYTES: usize = 8;
        const DESCRIPTOR_BYTES: usize = 16;
        self.check_writable()?;
        if !self.is_thin() {
            return Err(Sense::INVALID_OPERATION);
        }
        if cdb.0[1] & UNMAP_ANCHOR != 0 {
            return Err(Sense::INVALID_FIELD);
        }
        let done = Response::Work { operations: Vec::new(), transfer: 0 };
        if parameters.is_empty() {
            return Ok(done);
        }
        let (header, list) = parameters.split_at_checked(HEADER_BYTES).ok_or(Sense::PARAMETER_LENGTH)?;
        let announced = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let list = list.get(..announced).ok_or(Sense::PARAMETER_LENGTH)?;
        // A rest that is no descriptor is ignored.
        let descriptors = list.as_chunks::<DESCRIPTOR_BYTES>().0;
        if descriptors.len() > MAX_UNMAP_DESCRIPTORS as usize {
            return Err(Sense::INVALID_PARAMETER);
        }
        let (mut operations, mut total) = (Vec::new(), 0);
        for descriptor in descriptors {
            let (lba, rest) = descriptor.split_first_chunk().ok_or(Sense::PARAMETER_LENGTH)?;
            let blocks = u32::from_be_bytes([rest[0], rest[1], rest[2], rest[3]]);
            let (offset, bytes) = self.locate(u64::from_be_bytes(*lba), blocks.into())?;
            total += bytes;
            if bytes > 0 {
                operations.push(Operation::Discard { offset, bytes });
            }
        }
        if total > MAX_UNMAP_BYTES {
            return Err(Sense::INVALID_PARAMETER);
        }
        let transfer = u32::try_from(parameters.len()).unwrap_or(u32::MAX);
        Ok(Response::Work { operations, transfer })
    }

    /// WRITE SAME (16) (SBC-3 §5.46). Blocks that may be unmapped and shall read as zeros are discarded if discarded
    /// blocks do.
    fn write_same(&self, cdb: &Cdb, pattern: &[u8]) -> Result<Response, Sense> {
        self.check_writable()?;
        let flags = cdb.0[1];
        let unmap = flags & WRITE_SAME_UNMAP != 0;
        let blocks = cdb.be32(10);
        let too_many = blocks == 0 || blocks > self.max_write_same_blocks();
        if flags & (PROTECT | WRITE_SAME_ANCHOR) != 0 || (unmap && !self.is_thin()) || too_many {
            return Err(Sense::INVALID_FIELD);
        }
        let (offset, bytes) = self.locate(cdb.be64(2), blocks.into())?;
        let zeros = pattern.iter().all(|byte| *byte == 0);
        let operation = if zeros && unmap && self.discarded_reads_zero() {
            Operation::Discard { offset, bytes }
        } else if zeros {
            Operation::Zero { offset, bytes }
        } else {
            Operation::Fill { offset, bytes, pattern: pattern.to_vec() }
        };
        let transfer = u32::try_from(pattern.len()).unwrap_or(u32::MAX);
        Ok(Response::Work { operations: vec![operation], transfer })
    }

    pub(super) fn max_transfer_blocks(&self) -> u32 {
        MAX_TRANSFER_BYTES / self.geometry.block_bytes
    }

    pub(super) fn max_write_same_blocks(&self) -> u32 {
        MAX_WRITE_SAME_BYTES / self.geometry.block_bytes
    }

    pub(super) fn max_unmap_blocks(&self) -> u32 {
        u32::try_from(MAX_UNMAP_BYTES / u64::from(self.geometry.block_bytes)).unwrap_or(u32::MAX)
    }
}

/// What a READ or WRITE wants.
struct Access {
    offset: u64,
    bytes: u32,
    fua: bool,
}

/// Operations that move this much, if the initiator has room for it. Without data there is nothing to do.
fn moves(operations: Vec<Operation>, bytes: u32, room: u32) -> Response {
    match bytes {
        0 => Response::Work { operations: Vec::new(), transfer: 0 },
        bytes if bytes > room => Response::Overrun,
        transfer => Response::Work { operations, transfer },
    }
}
