//! What a virtual machine is made of, and the checks that need no file.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

/// The most VPs a machine can have: `/dev/mshv` numbers them with a byte, and APIC id 255 is the broadcast
/// address of a processor that is not in x2APIC mode.
pub const MAX_VPS: u32 = 254;

/// The least memory a machine can have, in MiB. The kernel usually needs more, which the worker's check finds
/// out.
pub const MIN_MEMORY_MIB: u64 = 16;

/// Longest name; with the run directory it must fit the 108 bytes of a UNIX socket address.
const MAX_NAME: usize = 48;

/// Longest kernel command line in bytes; x86 Linux takes 2047 and a terminator.
const MAX_CMDLINE: usize = 2047;

/// The name of a virtual machine: 1 to 48 of the letters `a-z A-Z 0-9 . _ -`, not starting with a dot or a
/// dash, so that it can be part of a file name and is never taken for an option.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VmName(String);

impl VmName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for VmName {
    type Error = ConfigError;

    fn try_from(name: String) -> Result<Self, ConfigError> {
        let ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        if starts_well && name.len() <= MAX_NAME && name.chars().all(ok) {
            Ok(Self(name))
        } else {
            Err(ConfigError::Name(name))
        }
    }
}

impl std::str::FromStr for VmName {
    type Err = ConfigError;

    fn from_str(name: &str) -> Result<Self, ConfigError> {
        Self::try_from(name.to_owned())
    }
}

impl From<VmName> for String {
    fn from(name: VmName) -> Self {
        name.0
    }
}

impl fmt::Display for VmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything `bulkhead create` says about a virtual machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmConfig {
    /// The name by which every other command refers to it.
    pub name: VmName,
    /// Number of virtual processors.
    pub vps: u32,
    /// Guest memory in MiB.
    pub memory_mib: u64,
    /// A bzImage, or an ELF file with a PVH entry; absolute.
    pub kernel: PathBuf,
    /// Initial RAM disk; absolute.
    pub initramfs: Option<PathBuf>,
    /// The kernel's command line.
    pub cmdline: String,
    /// Whether the guest sees the hypervisor (CPUID leaf 1 ECX bit 31 and leaves `0x4000_00xx`).
    pub enlightenments: bool,
    /// Disks, in the order of their units.
    #[serde(default)]
    pub disks: Vec<DiskConfig>,
}

/// A disk of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskConfig {
    /// A file or a block device; absolute.
    pub path: PathBuf,
    /// Whether the guest may only read it.
    pub read_only: bool,
}

impl VmConfig {
    /// Checks what can be checked without looking at a file.
    ///
    /// # Errors
    ///
    /// The first value that is out of bounds, with the bounds.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.vps == 0 || self.vps > MAX_VPS {
            return Err(ConfigError::Vps(self.vps));
        }
        if self.memory_mib < MIN_MEMORY_MIB {
            return Err(ConfigError::Memory(self.memory_mib));
        }
        if !self.enlightenments && !self.disks.is_empty() {
            return Err(ConfigError::HiddenDisks);
        }
        if self.cmdline.len() > MAX_CMDLINE || self.cmdline.contains('\0') {
            return Err(ConfigError::Cmdline(self.cmdline.len()));
        }
        Ok(())
    }
}

/// A value no virtual machine can have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// Not a name.
    Name(String),
    /// Too few or too many processors.
    Vps(u32),
    /// Less memory than any kernel needs, in MiB.
    Memory(u64),
    /// A command line of this many bytes, or one with a NUL in it.
    Cmdline(usize),
    /// Disks for a guest that cannot find their bus.
    HiddenDisks,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(
                f,
                "'{}' is not a name: use 1 to {MAX_NAME} of a-z A-Z 0-9 . _ -, \
                 and start with a letter or digit",
                name.escape_debug()
            ),
            Self::Vps(n) => write!(f, "{n} virtual processors: give 1 to {MAX_VPS} with --vps"),
            Self::Memory(mib) => {
                write!(f, "{mib} MiB of memory is too little: give at least {MIN_MEMORY_MIB} with --memory")
            }
            Self::Cmdline(len) => write!(
                f,
                "the kernel command line has {len} bytes or a NUL in it: \
                 give at most {MAX_CMDLINE} bytes of text"
            ),
            Self::HiddenDisks => f.write_str(
                "disks are synthetic, and a guest from which the hypervisor is hidden cannot find them: \
                 give no --disk with --no-enlightenments",
            ),
        }
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> VmConfig {
        VmConfig {
            name: "a".parse().unwrap(),
            vps: 1,
            memory_mib: 256,
            kernel: "/k".into(),
            initramfs: None,
            cmdline: String::new(),
            enlightenments: true,
            disks: Vec::new(),
        }
    }

    #[test]
    fn name_that_could_be_a_path_or_an_option_is_refused() {
        for bad in ["", ".", "..", "a/b", "-n", ".x", "a b", "ä", &"x".repeat(MAX_NAME + 1)] {
            assert!(bad.parse::<VmName>().is_err(), "{bad:?}");
        }
        for good in ["a", "web-1", "A.b_c", "0", &"x".repeat(MAX_NAME)] {
            assert!(good.parse::<VmName>().is_ok(), "{good:?}");
        }
    }

    #[test]
    fn bad_name_in_json_is_refused_too() {
        assert!(serde_json::from_str::<VmName>("\"../x\"").is_err());
    }

    #[test]
    fn bounds_are_named_in_one_line() {
        let cases = [
            VmConfig { vps: 0, ..config() },
            VmConfig { vps: 255, ..config() },
            VmConfig { memory_mib: 1, ..config() },
            VmConfig { cmdline: "x".repeat(2048), ..config() },
            VmConfig { cmdline: "a\0b".into(), ..config() },
            VmConfig {
                enlightenments: false,
                disks: vec![DiskConfig { path: "/d".into(), read_only: true }],
                ..config()
            },
        ];
        for bad in cases {
            let line = bad.check().unwrap_err().to_string();
            assert!(!line.contains('\n') && line.contains("give"), "{line}");
        }
        assert_eq!(config().check(), Ok(()));
    }
}
