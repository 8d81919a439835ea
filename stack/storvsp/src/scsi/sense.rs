//! Sense: why a command failed (SPC-4 §4.5).

/// A sense key with its additional code and qualifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sense {
    /// Sense key.
    pub key: u8,
    /// Additional sense code.
    pub code: u8,
    /// Its qualifier.
    pub qualifier: u8,
}

impl Sense {
    /// Nothing to report.
    pub const NONE: Self = Self::new(0x0, 0x00, 0x00);
    /// WRITE ERROR on the medium.
    pub const WRITE_ERROR: Self = Self::new(0x3, 0x0c, 0x00);
    /// UNRECOVERED READ ERROR on the medium.
    pub const READ_ERROR: Self = Self::new(0x3, 0x11, 0x00);
    /// PARAMETER LIST LENGTH ERROR.
    pub const PARAMETER_LENGTH: Self = Self::new(0x5, 0x1a, 0x00);
    /// INVALID COMMAND OPERATION CODE.
    pub const INVALID_OPERATION: Self = Self::new(0x5, 0x20, 0x00);
    /// LOGICAL BLOCK ADDRESS OUT OF RANGE.
    pub const LBA_OUT_OF_RANGE: Self = Self::new(0x5, 0x21, 0x00);
    /// INVALID FIELD IN CDB.
    pub const INVALID_FIELD: Self = Self::new(0x5, 0x24, 0x00);
    /// INVALID FIELD IN PARAMETER LIST.
    pub const INVALID_PARAMETER: Self = Self::new(0x5, 0x26, 0x00);
    /// SAVING PARAMETERS NOT SUPPORTED.
    pub const NO_SAVED_PARAMETERS: Self = Self::new(0x5, 0x39, 0x00);
    /// CAPACITY DATA HAS CHANGED, a unit attention. Linux reads the capacity again (`storvsc_handle_error`).
    pub const CAPACITY_CHANGED: Self = Self::new(0x6, 0x2a, 0x09);
    /// WRITE PROTECTED.
    pub const WRITE_PROTECTED: Self = Self::new(0x7, 0x27, 0x00);
    /// SPACE ALLOCATION FAILED WRITE PROTECT: an initiator may try again when there is room (SBC-3 §4.7.3.7).
    pub const SPACE_EXHAUSTED: Self = Self::new(0x7, 0x27, 0x07);

    const fn new(key: u8, code: u8, qualifier: u8) -> Self {
        Self { key, code, qualifier }
    }

    /// Fixed format (SPC-4 §4.5.3), current error.
    pub fn fixed(self) -> [u8; 18] {
        let mut data = [0; 18];
        data[0] = 0x70;
        data[2] = self.key;
        data[7] = 10;
        data[12] = self.code;
        data[13] = self.qualifier;
        data
    }
}
