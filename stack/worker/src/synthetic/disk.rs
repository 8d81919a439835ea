//! The disks of a configuration: files and block devices of the root, as units of a synthetic SCSI controller.

use std::{
    fmt,
    fs::{self, File},
    io,
    os::unix::fs::FileTypeExt,
    path::PathBuf,
    sync::Arc,
};

use control::{DiskConfig, VmConfig, VmName};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use storvsp::{
    backend::{Access, Backend, FileBackend},
    controller::{Controller, Disk, MAX_UNITS},
    scsi::{Geometry, Identity},
};
use vmbus::guid::Guid;

/// Which of its machine's controllers it is: the first.
pub(super) const INSTANCE: Guid = Guid::new(0x4b48_6442, 0x7363, 0x7369, 0x8000, 0x0000_0000_0000);

/// VPs for each channel of a controller, as on Hyper-V.
const VPS_PER_CHANNEL: u32 = 4;

/// Why a machine cannot have a disk. Every message names the file and what to do.
#[derive(Debug)]
pub enum DiskError {
    /// It cannot be opened.
    Open(PathBuf, io::Error),
    /// It is a folder, a pipe or the like.
    Kind(PathBuf),
    /// It has not a single block.
    Empty(PathBuf),
    /// A machine writes it, or this one wants to write what another uses.
    InUse(PathBuf),
    /// Its host's file system knows no locks.
    Lock(PathBuf, Errno),
    /// There are more than a controller takes.
    TooMany(usize),
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(path, error) if error.kind() == io::ErrorKind::PermissionDenied => write!(
                f,
                "cannot open the disk {}: {error}; let the root's user write it, or add ',ro' to --disk",
                path.display()
            ),
            Self::Open(path, error) => write!(
                f,
                "cannot open the disk {}: {error}; give a file or a block device with --disk",
                path.display()
            ),
            Self::Kind(path) => write!(
                f,
                "{} is no disk: it is neither a file nor a block device; give one with --disk",
                path.display()
            ),
            Self::Empty(path) => write!(
                f,
                "the disk {} has less than a block of 512 bytes: make it as large as it is to be, \
                 with 'truncate -s SIZE', and give it with --disk",
                path.display()
            ),
            Self::InUse(path) => write!(
                f,
                "the disk {} is in use by another machine: stop that, or give it to both with ',ro'",
                path.display()
            ),
            Self::Lock(path, error) => write!(
                f,
                "the disk {} cannot be locked: {error}; put it on a file system that has locks",
                path.display()
            ),
            Self::TooMany(count) => {
                write!(f, "{count} disks are too many: give at most {MAX_UNITS} with --disk")
            }
        }
    }
}

impl std::error::Error for DiskError {}

/// A controller with the machine's disks, or none where there are no disks. They are locked as long as it lives.
///
/// # Errors
///
/// The first disk that cannot be had.
pub fn controller(config: &VmConfig) -> Result<Option<Arc<Controller>>, DiskError> {
    if config.disks.is_empty() {
        return Ok(None);
    }
    let too_many = || DiskError::TooMany(config.disks.len());
    if config.disks.len() > MAX_UNITS.into() {
        return Err(too_many());
    }
    let channels = config.vps.div_ceil(VPS_PER_CHANNEL);
    let controller = Controller::new(u16::try_from(channels - 1).unwrap_or(u16::MAX));
    for (lun, disk) in (0..).zip(&config.disks) {
        let backend = Arc::new(open(disk)?);
        let disk = Disk::new(identity(&config.name, lun), Geometry::default(), backend);
        controller.attach(lun, disk).map_err(|_| too_many())?;
    }
    Ok(Some(Arc::new(controller)))
}

fn open(disk: &DiskConfig) -> Result<FileBackend, DiskError> {
    let path = || disk.path.clone();
    // Looked at before it is opened, as opening a pipe waits and opening a device may do anything.
    let kind = fs::metadata(&disk.path).map_err(|error| DiskError::Open(path(), error))?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(DiskError::Kind(path()));
    }
    let file = File::options().read(true).write(!disk.read_only).open(&disk.path);
    let file = file.map_err(|error| DiskError::Open(path(), error))?;
    let (access, lock) = if disk.read_only {
        (Access::ReadOnly, FlockOperation::NonBlockingLockShared)
    } else {
        (Access::ReadWrite, FlockOperation::NonBlockingLockExclusive)
    };
    match flock(&file, lock) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Err(DiskError::InUse(path())),
        Err(error) => return Err(DiskError::Lock(path(), error)),
    }
    let backend = FileBackend::new(file, access).map_err(|_| DiskError::Kind(path()))?;
    if backend.properties().bytes < Geometry::default().block_bytes.into() {
        return Err(DiskError::Empty(path()));
    }
    Ok(backend)
}

/// The same disk at each start of the same machine: FNV-1a of the machine's name, then the unit.
fn identity(name: &VmName, lun: u8) -> Identity {
    let step = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = name.as_str().bytes().fold(0xcbf2_9ce4_8422_2325, step);
    let mut id = [0; 16];
    id[..8].copy_from_slice(&hash.to_be_bytes());
    id[15] = lun;
    Identity(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(disks: Vec<DiskConfig>) -> VmConfig {
        VmConfig {
            name: "a".parse().unwrap(),
            vps: 5,
            memory_mib: 64,
            kernel: "/k".into(),
            initramfs: None,
            cmdline: String::new(),
            enlightenments: true,
            disks,
        }
    }

    fn disk(path: &std::path::Path, read_only: bool) -> DiskConfig {
        DiskConfig { path: path.into(), read_only }
    }

    #[test]
    fn a_disk_that_is_written_has_one_machine_and_one_that_is_read_many() {
        let folder = std::env::temp_dir().join(format!("bulkhead-disk-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("d");
        fs::write(&path, [0; 4096]).unwrap();
        let first = controller(&config(vec![disk(&path, false)])).unwrap();
        for read_only in [false, true] {
            let second = controller(&config(vec![disk(&path, read_only)]));
            assert!(matches!(second, Err(DiskError::InUse(_))));
        }
        drop(first);
        let readers: Vec<_> = (0..2).map(|_| controller(&config(vec![disk(&path, true)])).unwrap()).collect();
        assert!(matches!(controller(&config(vec![disk(&path, false)])), Err(DiskError::InUse(_))));
        drop(readers);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_cannot_be_a_disk_is_refused_in_one_line_that_names_it() {
        let folder = std::env::temp_dir().join(format!("bulkhead-no-disk-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let [pipe, short] = ["pipe", "short"].map(|name| folder.join(name));
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        fs::write(&short, [0; 511]).unwrap();
        for path in [&folder, &pipe, &short, &folder.join("none"), &"/dev/null".into()] {
            let Err(error) = controller(&config(vec![disk(path, true)])) else { panic!("{path:?}") };
            let line = error.to_string();
            assert!(line.contains(path.to_str().unwrap()) && line.contains("--disk"), "{line}");
            assert!(!line.contains('\n'), "{line}");
        }
        assert!(controller(&config(Vec::new())).unwrap().is_none());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_controller_has_64_disks_and_no_more() {
        let many = |count| controller(&config(vec![disk("/dev/null".as_ref(), true); count]));
        assert!(matches!(many(65), Err(DiskError::TooMany(65))));
        assert!(matches!(many(64), Err(DiskError::Kind(_))));
    }

    #[test]
    fn disks_are_told_apart_by_machine_and_unit() {
        let names: [VmName; 2] = ["a".parse().unwrap(), "b".parse().unwrap()];
        assert_ne!(identity(&names[0], 0), identity(&names[1], 0));
        assert_ne!(identity(&names[0], 0), identity(&names[0], 1));
        assert_eq!(identity(&names[0], 0), identity(&names[0], 0));
    }
}
