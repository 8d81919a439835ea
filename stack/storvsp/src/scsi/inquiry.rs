//! INQUIRY, its vital product data, and REPORT LUNS.

use super::{Cdb, Sense, Target, transfer};

/// Linux knows by the vendor that WRITE SAME works (`storvsc_device_configure`); Windows expects both.
const VENDOR: &[u8; 8] = b"Msft    ";
const PRODUCT: &[u8; 16] = b"Virtual Disk    ";
const REVISION: &[u8; 4] = b"1.0 ";
/// SPC-4 (table "version field"). Linux believes in thin provisioning from SPC-3 on.
const VERSION: u8 = 6;
/// The response data have the format of SPC-2 and later.
const RESPONSE_FORMAT: u8 = 2;
/// Commands may be queued.
const CMDQUE: u8 = 2;
/// There is no such unit and there cannot be one (peripheral qualifier 3, type 0x1f).
const ABSENT: u8 = 0x7f;

const SUPPORTED_PAGES: u8 = 0x00;
const SERIAL_NUMBER: u8 = 0x80;
const IDENTIFICATION: u8 = 0x83;
const BLOCK_LIMITS: u8 = 0xb0;
const CHARACTERISTICS: u8 = 0xb1;
const PROVISIONING: u8 = 0xb2;
const PAGES: [u8; 6] =
    [SUPPORTED_PAGES, SERIAL_NUMBER, IDENTIFICATION, BLOCK_LIMITS, CHARACTERISTICS, PROVISIONING];

impl Target {
    /// INQUIRY (SPC-4 §6.6).
    pub(super) fn inquiry(&self, cdb: &Cdb) -> Result<Vec<u8>, Sense> {
        let (vital, page) = (cdb.0[1] & 1 != 0, cdb.0[2]);
        if cdb.0[1] & !1 != 0 || (!vital && page != 0) {
            return Err(Sense::INVALID_FIELD);
        }
        if !vital {
            return Ok(standard(0));
        }
        let body = match page {
            SUPPORTED_PAGES => PAGES.to_vec(),
            SERIAL_NUMBER => self.identity.serial().into_bytes(),
            IDENTIFICATION => self.identification(),
            BLOCK_LIMITS => self.block_limits(),
            CHARACTERISTICS => characteristics(),
            PROVISIONING => self.provisioning(),
            _ => return Err(Sense::INVALID_FIELD),
        };
        // All pages of this target are shorter than 256 bytes.
        Ok([&[0, page, 0, u8::try_from(body.len()).unwrap_or(u8::MAX)], &body[..]].concat())
    }

    /// Device identification (SPC-4 §7.8.6): a locally assigned name, since we have no number of the IEEE, and one that
    /// begins with the vendor.
    fn identification(&self) -> Vec<u8> {
        const BINARY: u8 = 1;
        const ASCII: u8 = 2;
        const VENDOR_BASED: u8 = 1;
        const NAA: u8 = 3;
        /// The first digit of a locally assigned NAA name.
        const LOCALLY_ASSIGNED: u8 = 0x30;
        let mut name = [0; 8];
        for (index, byte) in self.identity.0.iter().enumerate() {
            name[index % 8] ^= byte;
        }
        name[0] = LOCALLY_ASSIGNED | (name[0] & 0xf);
        let text = [&VENDOR[..], self.identity.serial().as_bytes()].concat();
        let text_length = u8::try_from(text.len()).unwrap_or(u8::MAX);
        [&[BINARY, NAA, 0, 8], &name[..], &[ASCII, VENDOR_BASED, 0, text_length], &text].concat()
    }

    /// Block limits (SBC-3 §6.6.3), in logical blocks.
    fn block_limits(&self) -> Vec<u8> {
        /// WRITE SAME of 0 blocks does not mean the whole disk.
        const WSNZ: u8 = 1;
        /// The alignment below is valid.
        const UGAVALID: u32 = 1 << 31;
        let mut page = vec![0; 64];
        let physical = self.blocks_per_physical();
        page[4] = WSNZ;
        page[6..8].copy_from_slice(&u16::try_from(physical).unwrap_or(0).to_be_bytes());
        page[8..12].copy_from_slice(&self.max_transfer_blocks().to_be_bytes());
        if self.is_thin() {
            page[20..24].copy_from_slice(&self.max_unmap_blocks().to_be_bytes());
            page[24..28].copy_from_slice(&transfer::MAX_UNMAP_DESCRIPTORS.to_be_bytes());
            page[28..32].copy_from_slice(&physical.to_be_bytes());
            page[32..36].copy_from_slice(&UGAVALID.to_be_bytes());
        }
        page[36..44].copy_from_slice(&u64::from(self.max_write_same_blocks()).to_be_bytes());
        page.split_off(4)
    }

    /// Logical block provisioning (SBC-3 §6.6.4).
    fn provisioning(&self) -> Vec<u8> {
        /// UNMAP and WRITE SAME (16) unmap.
        const LBPU_LBPWS: u8 = 0xc0;
        const LBPRZ: u8 = 0x04;
        const FULLY_PROVISIONED: u8 = 0;
        const THIN: u8 = 2;
        match (self.is_thin(), self.discarded_reads_zero()) {
            (false, _) => vec![0, 0, FULLY_PROVISIONED, 0],
            (true, false) => vec![0, LBPU_LBPWS, THIN, 0],
            (true, true) => vec![0, LBPU_LBPWS | LBPRZ, THIN, 0],
        }
    }
}

/// Block device characteristics (SBC-3 §6.6.2): a medium that does not rotate.
fn characteristics() -> Vec<u8> {
    let mut page = vec![0; 60];
    page[1] = 1;
    page
}

/// Standard INQUIRY data (SPC-4 §6.6.2) of a unit with this peripheral byte.
fn standard(peripheral: u8) -> Vec<u8> {
    const LENGTH: u8 = 36;
    let head = [peripheral, 0, VERSION, RESPONSE_FORMAT, LENGTH - 5, 0, 0, CMDQUE];
    [&head[..], VENDOR, PRODUCT, REVISION].concat()
}

/// The answer to INQUIRY of a unit that does not exist. It has to be an answer: Linux takes every INQUIRY as done
/// well (`storvsc_on_io_completion`), so an error would leave it with an empty disk.
pub fn absent_unit(cdb: &Cdb) -> Result<Vec<u8>, Sense> {
    if cdb.0[1] & 1 != 0 || cdb.0[2] != 0 {
        return Err(Sense::INVALID_FIELD);
    }
    let mut data = standard(ABSENT);
    data.truncate(cdb.be16(3).into());
    Ok(data)
}

/// The answer to REPORT LUNS (SPC-4 §6.33) of a target with these units.
///
/// # Errors
/// The command asks for what does not exist, or has no room.
pub fn report_luns(cdb: &Cdb, luns: impl Iterator<Item = u8>) -> Result<Vec<u8>, Sense> {
    /// The least room that an initiator may have.
    const LEAST: u32 = 16;
    let (report, allocated) = (cdb.0[2], cdb.be32(6));
    // 0 and 2 are all ordinary units, 1 the well-known ones, of which there are none.
    if report > 2 || allocated < LEAST {
        return Err(Sense::INVALID_FIELD);
    }
    let list: Vec<u8> = luns.filter(|_| report != 1).flat_map(|lun| [0, lun, 0, 0, 0, 0, 0, 0]).collect();
    // At most 256 units.
    let length = u32::try_from(list.len()).unwrap_or(0);
    let mut data = [&length.to_be_bytes()[..], &[0; 4], &list].concat();
    data.truncate(allocated as usize);
    Ok(data)
}
