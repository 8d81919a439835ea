//! MODE SENSE (SPC-4 §6.13, §6.14): pages without a block descriptor.

use super::{Cdb, Sense, Target};

const CACHING: u8 = 0x08;
const CONTROL: u8 = 0x0a;
const ALL: u8 = 0x3f;
const ALL_SUBPAGES: u8 = 0xff;

impl Target {
    pub(super) fn mode_sense_6(&self, cdb: &Cdb) -> Result<Vec<u8>, Sense> {
        let pages = mode_pages(cdb)?;
        // Two short pages.
        let length = u8::try_from(3 + pages.len()).unwrap_or(u8::MAX);
        Ok([&[length, 0, self.device_specific(), 0], &pages[..]].concat())
    }

    pub(super) fn mode_sense_10(&self, cdb: &Cdb) -> Result<Vec<u8>, Sense> {
        let pages = mode_pages(cdb)?;
        let [high, low] = u16::try_from(6 + pages.len()).unwrap_or(u16::MAX).to_be_bytes();
        Ok([&[high, low, 0, self.device_specific(), 0, 0, 0, 0], &pages[..]].concat())
    }

    /// The device-specific parameter of a disk (SBC-3 §6.4.1).
    fn device_specific(&self) -> u8 {
        /// The medium is write protected.
        const WP: u8 = 0x80;
        /// FUA is obeyed.
        const DPOFUA: u8 = 0x10;
        if self.storage.read_only { WP | DPOFUA } else { DPOFUA }
    }
}

fn mode_pages(cdb: &Cdb) -> Result<Vec<u8>, Sense> {
    const CHANGEABLE: u8 = 1;
    const SAVED: u8 = 3;
    let (control, page, subpage) = (cdb.0[2] >> 6, cdb.0[2] & 0x3f, cdb.0[3]);
    if control == SAVED {
        return Err(Sense::NO_SAVED_PARAMETERS);
    }
    let mut pages = match (page, subpage) {
        (CACHING, 0) => vec![caching()],
        (CONTROL, 0) => vec![control_page()],
        (ALL, 0 | ALL_SUBPAGES) => vec![caching(), control_page()],
        _ => return Err(Sense::INVALID_FIELD),
    };
    if control == CHANGEABLE {
        // Nothing is: a mask of zeros behind each page's head.
        pages.iter_mut().for_each(|page| page[2..].fill(0));
    }
    Ok(pages.concat())
}

/// SBC-3 §6.4.5: writes may be cached.
fn caching() -> Vec<u8> {
    const WCE: u8 = 4;
    let mut page = vec![0; 20];
    page[..3].copy_from_slice(&[CACHING, 18, WCE]);
    page
}

/// SPC-4 §7.5.8: sense in fixed format, commands in any order.
fn control_page() -> Vec<u8> {
    const UNRESTRICTED_REORDERING: u8 = 0x10;
    let mut page = vec![0; 12];
    page[..4].copy_from_slice(&[CONTROL, 10, 0, UNRESTRICTED_REORDERING]);
    page
}
