//! A disk in a file or block device of the root, as it is: byte for byte.
//!
//! Each operation is done before it returns, through the page cache and a bounded buffer of our own, since guest
//! memory is never handed out as a reference. A flush is `fdatasync`.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom},
    os::unix::fs::{FileExt, FileTypeExt},
    task::Poll,
};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};

use super::{Backend, Discard, IoError, Operation, Properties, Token};
use vmbus::{memory::Memory, ranges::Segment};

/// The most bytes that are copied at once.
const BUFFER_BYTES: usize = 256 << 10;

/// A raw disk.
#[derive(Debug)]
pub struct FileBackend {
    file: File,
    read_only: bool,
    discard: Discard,
}

/// Whether a file may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It may.
    ReadWrite,
    /// It was opened to be read only.
    ReadOnly,
}

impl FileBackend {
    /// A disk in this open file. Its length is the file's, whenever somebody asks.
    ///
    /// # Errors
    /// It is neither a regular file nor a block device.
    pub fn new(file: File, access: Access) -> io::Result<Self> {
        let kind = file.metadata()?.file_type();
        // A hole in a file reads as zeros; what a block device does with discarded blocks is its own affair.
        let discard = match access {
            Access::ReadWrite if kind.is_file() => Discard::Zeroes,
            _ if kind.is_file() || kind.is_block_device() => Discard::Unsupported,
            _ => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a file nor a block device"));
            }
        };
        Ok(Self { file, read_only: access == Access::ReadOnly, discard })
    }

    fn perform(
        &self,
        operation: &Operation,
        memory: &dyn Memory,
        segments: &[Segment],
    ) -> Result<(), IoError> {
        match operation {
            Operation::Read { offset, .. } => self.read(*offset, memory, segments),
            Operation::Write { offset, .. } => self.write(*offset, memory, segments),
            Operation::Flush => Ok(self.file.sync_data()?),
            Operation::Discard { offset, bytes } => self.punch(*offset, *bytes),
            Operation::Zero { offset, bytes } => self.zero(*offset, *bytes),
            Operation::Fill { offset, bytes, pattern } => self.fill(*offset, *bytes, pattern),
        }
    }

    fn read(&self, offset: u64, memory: &dyn Memory, segments: &[Segment]) -> Result<(), IoError> {
        let mut pieces = Pieces::new(segments);
        let mut buffer = vec![0; pieces.left().min(BUFFER_BYTES)];
        let mut at = offset;
        while pieces.left() > 0 {
            let chunk = pieces.left().min(BUFFER_BYTES);
            self.file.read_exact_at(&mut buffer[..chunk], at)?;
            let mut done = 0;
            while let Some((gpa, bytes)) = pieces.next(chunk - done) {
                memory.write(gpa, &buffer[done..done + bytes])?;
                done += bytes;
            }
            at += chunk as u64;
        }
        Ok(())
    }

    fn write(&self, offset: u64, memory: &dyn Memory, segments: &[Segment]) -> Result<(), IoError> {
        let mut pieces = Pieces::new(segments);
        let mut buffer = vec![0; pieces.left().min(BUFFER_BYTES)];
        let mut at = offset;
        while pieces.left() > 0 {
            let chunk = pieces.left().min(BUFFER_BYTES);
            let mut done = 0;
            while let Some((gpa, bytes)) = pieces.next(chunk - done) {
                memory.read(gpa, &mut buffer[done..done + bytes])?;
                done += bytes;
            }
            self.file.write_all_at(&buffer[..chunk], at)?;
            at += chunk as u64;
        }
        Ok(())
    }

    fn punch(&self, offset: u64, bytes: u64) -> Result<(), IoError> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(&self.file, flags, offset, bytes) {
            Ok(()) => Ok(()),
            // The file system has no holes; zeros are what was promised.
            Err(Errno::OPNOTSUPP) => self.fill(offset, bytes, &[0]),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }

    fn zero(&self, offset: u64, bytes: u64) -> Result<(), IoError> {
        match fallocate(&self.file, FallocateFlags::ZERO_RANGE, offset, bytes) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP) => self.fill(offset, bytes, &[0]),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }

    fn fill(&self, offset: u64, bytes: u64, pattern: &[u8]) -> Result<(), IoError> {
        let whole = BUFFER_BYTES.next_multiple_of(pattern.len().max(1));
        let buffer: Vec<u8> = pattern.iter().copied().cycle().take(whole).collect();
        let (mut at, end) = (offset, offset + bytes);
        while at < end {
            let now = usize::try_from(end - at).map_or(whole, |left| left.min(whole));
            self.file.write_all_at(&buffer[..now], at)?;
            at += now as u64;
        }
        Ok(())
    }
}

impl Backend for FileBackend {
    fn properties(&self) -> Properties {
        // The end of a block device is found by seeking; positioned reads do not care where the file stands.
        let bytes = (&self.file).seek(SeekFrom::End(0)).unwrap_or(0);
        Properties { bytes, read_only: self.read_only, discard: self.discard }
    }

    fn submit(
        &self,
        _: Token,
        operation: &Operation,
        memory: &dyn Memory,
        segments: &[Segment],
    ) -> Poll<Result<(), IoError>> {
        Poll::Ready(self.perform(operation, memory, segments))
    }
}

/// Walks through segments in pieces of the caller's choice.
struct Pieces<'a> {
    segments: &'a [Segment],
    /// Bytes of the first segment that are done.
    done: usize,
}

impl<'a> Pieces<'a> {
    fn new(segments: &'a [Segment]) -> Self {
        Self { segments, done: 0 }
    }

    fn left(&self) -> usize {
        self.segments.iter().map(|segment| segment.bytes as usize).sum::<usize>() - self.done
    }

    /// The next piece of at most `most` bytes; none if that is 0 or all is done.
    fn next(&mut self, most: usize) -> Option<(u64, usize)> {
        let (first, rest) = self.segments.split_first().filter(|_| most > 0)?;
        let gpa = first.gpa + self.done as u64;
        let bytes = (first.bytes as usize - self.done).min(most);
        self.done += bytes;
        if self.done == first.bytes as usize {
            (self.segments, self.done) = (rest, 0);
        }
        Some((gpa, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::PathBuf};
    use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

    const TOKEN: Token = Token { slot: 0, generation: 0 };

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str, bytes: &[u8]) -> Self {
            let path = std::env::temp_dir().join(format!("bulkhead-storvsp-{name}-{}", std::process::id()));
            fs::write(&path, bytes).unwrap();
            Self(path)
        }

        fn open(&self, access: Access) -> FileBackend {
            let file = fs::OpenOptions::new().read(true).write(access == Access::ReadWrite).open(&self.0);
            FileBackend::new(file.unwrap(), access).unwrap()
        }

        fn content(&self) -> Vec<u8> {
            fs::read(&self.0).unwrap()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    fn ram() -> GuestMemoryMmap {
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 2 << 20)]).unwrap()
    }

    fn run(backend: &FileBackend, ram: &GuestMemoryMmap, operation: Operation, segments: &[Segment]) {
        assert_eq!(backend.submit(TOKEN, &operation, ram, segments), Poll::Ready(Ok(())));
    }

    #[test]
    fn scattered_memory_is_written_and_read_in_order() {
        let scratch = Scratch::new("scatter", &vec![0; 1 << 20]);
        let backend = scratch.open(Access::ReadWrite);
        let memory = ram();
        let data: Vec<u8> = (0..700_000u32).map(|at| (at % 253).to_le_bytes()[0]).collect();
        memory.write_slice(&data, GuestAddress(0x1000)).unwrap();
        // Across the end of the buffer, and out of order.
        let segments =
            [Segment { gpa: 0x1000 + 100_000, bytes: 600_000 }, Segment { gpa: 0x1000, bytes: 100_000 }];
        run(&backend, &memory, Operation::Write { offset: 512, bytes: 700_000 }, &segments);
        assert_eq!(scratch.content()[512..600_512], data[100_000..]);
        assert_eq!(scratch.content()[600_512..700_512], data[..100_000]);
        memory.write_slice(&vec![0; 700_000], GuestAddress(0x1000)).unwrap();
        run(&backend, &memory, Operation::Read { offset: 512, bytes: 700_000 }, &segments);
        let mut back = vec![0; 700_000];
        memory.read_slice(&mut back, GuestAddress(0x1000)).unwrap();
        assert_eq!(back, data);
        run(&backend, &memory, Operation::Flush, &[]);
    }

    #[test]
    fn discarded_and_zeroed_bytes_read_as_zeros_and_patterns_repeat() {
        let scratch = Scratch::new("discard", &[7; 64 << 10]);
        let backend = scratch.open(Access::ReadWrite);
        let memory = ram();
        run(&backend, &memory, Operation::Discard { offset: 512, bytes: 20_480 }, &[]);
        run(&backend, &memory, Operation::Zero { offset: 32 << 10, bytes: 512 }, &[]);
        let pattern: Vec<u8> = (0..512u32).map(|at| at.to_le_bytes()[0]).collect();
        run(
            &backend,
            &memory,
            Operation::Fill { offset: 40 << 10, bytes: 1024, pattern: pattern.clone() },
            &[],
        );
        let mut expected = vec![7; 64 << 10];
        expected[512..512 + 20_480].fill(0);
        expected[32 << 10..(32 << 10) + 512].fill(0);
        expected[40 << 10..(40 << 10) + 1024].copy_from_slice(&[&pattern[..], &pattern[..]].concat());
        assert_eq!(scratch.content(), expected);
    }

    #[test]
    fn the_length_is_the_files_and_reading_beyond_it_fails() {
        let scratch = Scratch::new("length", &[1; 1024]);
        let backend = scratch.open(Access::ReadOnly);
        let properties = Properties { bytes: 1024, read_only: true, discard: Discard::Unsupported };
        assert_eq!(backend.properties(), properties);
        let segments = [Segment { gpa: 0, bytes: 1024 }];
        let operation = Operation::Read { offset: 512, bytes: 1024 };
        let result = backend.submit(TOKEN, &operation, &ram(), &segments);
        assert_eq!(result, Poll::Ready(Err(IoError::Medium)));
        fs::write(&scratch.0, [1; 4096]).unwrap();
        assert_eq!(backend.properties().bytes, 4096);
        run(&backend, &ram(), operation, &segments);
    }

    #[test]
    fn memory_that_is_not_there_is_the_guests_fault() {
        let scratch = Scratch::new("memory", &[1; 1024]);
        let backend = scratch.open(Access::ReadWrite);
        let segments = [Segment { gpa: 1 << 40, bytes: 512 }];
        for operation in
            [Operation::Read { offset: 0, bytes: 512 }, Operation::Write { offset: 0, bytes: 512 }]
        {
            let result = backend.submit(TOKEN, &operation, &ram(), &segments);
            assert!(matches!(result, Poll::Ready(Err(IoError::Memory(_)))));
        }
        assert_eq!(scratch.content(), [1; 1024]);
    }

    #[test]
    fn only_files_and_block_devices_hold_disks() {
        let null = File::open("/dev/null").unwrap();
        assert_eq!(FileBackend::new(null, Access::ReadOnly).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_full_storage_is_told_apart() {
        let full = io::Error::from(Errno::NOSPC);
        assert_eq!(IoError::from(full), IoError::Full);
        assert_eq!(IoError::from(io::Error::from(Errno::IO)), IoError::Medium);
    }
}
