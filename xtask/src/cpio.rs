//! Writing archives of the `newc` form (cpio with ASCII headers), which Linux reads as an initramfs.
//!
//! Written here rather than by `cpio`, so that device nodes and owners need no privilege, and equal input
//! gives equal bytes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;

/// An archive in memory. Parent folders are added when they are needed.
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    folders: Vec<String>,
}

impl Archive {
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::new(), entries: 0, folders: Vec::new() }
    }

    /// Adds a folder and those above it, once.
    pub(crate) fn folder(&mut self, path: &str) {
        if path.is_empty() || self.folders.iter().any(|known| known == path) {
            return;
        }
        self.parent(path);
        self.folders.push(path.to_string());
        self.entry(path, DIRECTORY | 0o755, (0, 0), &[]);
    }

    /// Adds a regular file with these permissions. A later entry of the same path replaces an earlier one.
    pub(crate) fn file(&mut self, path: &str, permissions: u32, content: &[u8]) {
        self.parent(path);
        self.entry(path, REGULAR | permissions, (0, 0), content);
    }

    /// Adds a symbolic link.
    pub(crate) fn link(&mut self, path: &str, to: &str) {
        self.parent(path);
        self.entry(path, SYMLINK | 0o777, (0, 0), to.as_bytes());
    }

    /// Adds a character device.
    pub(crate) fn device(&mut self, path: &str, major: u32, minor: u32) {
        self.parent(path);
        self.entry(path, CHARACTER | 0o600, (major, minor), &[]);
    }

    /// Adds a file of the host with its permissions.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn host_file(&mut self, path: &str, host: &Path) -> Result<()> {
        let content = fs::read(host).with_context(|| format!("cannot read {}", host.display()))?;
        let permissions = fs::metadata(host)?.permissions().mode() & 0o7777;
        self.file(path, permissions, &content);
        Ok(())
    }

    /// Adds everything below a folder of the host under `path`.
    ///
    /// # Errors
    /// Something cannot be read, or is neither file, folder nor link.
    pub(crate) fn host_folder(&mut self, path: &str, host: &Path) -> Result<()> {
        let reading = || format!("cannot read the folder {}", host.display());
        let mut entries = fs::read_dir(host).with_context(reading)?.collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name();
            let name = name.to_str().with_context(|| format!("{name:?} is not a UTF-8 name"))?;
            let inside = if path.is_empty() { name.to_string() } else { format!("{path}/{name}") };
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.folder(&inside);
                self.host_folder(&inside, &entry.path())?;
            } else if kind.is_symlink() {
                self.link(&inside, &fs::read_link(entry.path())?.to_string_lossy());
            } else if kind.is_file() {
                self.host_file(&inside, &entry.path())?;
            } else {
                bail!("{} is neither a file, a folder nor a link", entry.path().display());
            }
        }
        Ok(())
    }

    /// Ends the archive and gives its bytes.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entries = 0;
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn parent(&mut self, path: &str) {
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.folder(folder);
        }
    }

    /// One entry: a header of 13 hexadecimal fields, the name with its NUL, the data; each padded to 4 bytes.
    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), data: &[u8]) {
        self.entries += 1;
        let links = if mode & 0o170_000 == DIRECTORY { 2 } else { 1 };
        let fields = [
            self.entries,
            mode,
            0,
            0,
            links,
            0,
            data.len() as u32,
            0,
            0,
            device.0,
            device.1,
            name.len() as u32 + 1,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::Archive;

    #[test]
    fn entries_are_padded_and_end_with_a_trailer() {
        let mut archive = Archive::new();
        archive.file("a/b", 0o644, b"xyz");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        let (folder, file) = (text.find("\0a\0").or(text.find("a\0")), text.find("a/b\0"));
        assert!(folder < file, "the folder comes before what lies in it");
        assert!(text.contains("xyz\0") && text.contains("TRAILER!!!\0"));
    }

    #[test]
    fn header_has_a_hundred_and_ten_bytes() {
        let mut archive = Archive::new();
        archive.file("n", 0o755, b"");
        let bytes = archive.finish();
        assert_eq!(&bytes[..14], b"07070100000001");
        assert_eq!(&bytes[14..22], b"000081ed");
        assert_eq!(&bytes[110..112], b"n\0");
        assert_eq!(&bytes[112..118], b"070701");
    }
}
