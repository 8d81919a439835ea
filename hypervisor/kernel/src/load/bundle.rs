//! The root's kernel, initramfs and command line among the loader's modules.
//!
//! PVH passes one module: a `newc` archive (Linux Documentation/driver-api/early-userspace/buffer-format.rst)
//! with the entries `kernel`, `initramfs` and `cmdline`. Multiboot2 passes files whose text begins with their
//! name; the rest of the kernel's text is the command line. An `initramfs` module takes the place of a bundle's.

use hal::{addr::Hpa, boot::Module, list::List, mem::boot::Span};
use model::ensure;

use super::{Error, Memory, reached, read};

/// Most bytes of a command line. With its final zero it takes half a page.
const MAX_COMMAND_LINE: usize = 2047;

/// A command line without its final zero.
pub(super) type CommandLine = List<u8, MAX_COMMAND_LINE>;

const HEAD_BYTES: u64 = 110;
const MAGIC: &[u8] = b"070701";
/// Longer names than this are none of ours.
const NAME_BYTES: usize = 16;

/// What the root is made of, where the loader left it.
pub(super) struct Bundle {
    pub(super) kernel: Span,
    /// Empty if there is none.
    pub(super) initramfs: Span,
    pub(super) command_line: CommandLine,
}

/// Finds the root's files among the loader's.
pub(super) fn find(memory: &impl Memory, modules: &[Module]) -> Result<Bundle, Error> {
    if let Some(module) = modules.iter().find(|module| module.start.checked_add(module.len).is_none()) {
        return Err(Error::OutOfReach(module.start));
    }
    let mut bundle = Bundle { kernel: Span::EMPTY, initramfs: Span::EMPTY, command_line: List::default() };
    if !modules.iter().any(|module| first_word(module.name).0 == "kernel") {
        unpack(memory, modules.first().ok_or(Error::NoBundle)?, &mut bundle)?;
    }
    for module in modules {
        let span = Span { start: module.start, len: module.len };
        match first_word(module.name) {
            ("kernel", rest) => (bundle.kernel, bundle.command_line) = (span, command_line(rest.as_bytes())?),
            ("initramfs", _) => bundle.initramfs = span,
            _ => {}
        }
    }
    if bundle.kernel.len == 0 { Err(Error::NoKernel) } else { Ok(bundle) }
}

fn first_word(text: &str) -> (&str, &str) {
    text.trim_start().split_once(' ').unwrap_or((text.trim(), ""))
}

fn unpack(memory: &impl Memory, archive: &Module, bundle: &mut Bundle) -> Result<(), Error> {
    let mut at = 0;
    while let Some(entry) = Entry::read(memory, archive, at)? {
        at = entry.next;
        match entry.name() {
            b"kernel" => bundle.kernel = entry.data,
            b"initramfs" => bundle.initramfs = entry.data,
            b"cmdline" => {
                let mut text = [0; MAX_COMMAND_LINE + 1];
                let len = entry.data.len as usize;
                let text = text.get_mut(..len).ok_or(Error::CommandLineTooLong(len))?;
                reached(memory.read(entry.data.start, text), entry.data.start)?;
                bundle.command_line = command_line(text)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Copies text without the zeros and white space at its ends.
fn command_line(text: &[u8]) -> Result<CommandLine, Error> {
    let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
    let text = text.get(..end).unwrap_or_default().trim_ascii();
    let mut line = List::default();
    text.iter().try_for_each(|&byte| line.push(byte)).map_err(|_| Error::CommandLineTooLong(text.len()))?;
    Ok(line)
}

/// An entry of an archive.
struct Entry {
    name: [u8; NAME_BYTES],
    data: Span,
    /// Offset of the next entry.
    next: u64,
}

impl Entry {
    /// Reads the entry at offset `at`; nothing where the archive says that it ends.
    fn read(memory: &impl Memory, archive: &Module, at: u64) -> Result<Option<Self>, Error> {
        let bad = Error::BadBundle(at);
        ensure(at + HEAD_BYTES <= archive.len, bad)?;
        let head: [u8; HEAD_BYTES as usize] = read(memory, archive.start, at)?;
        let (data_len, name_len) = (hex(&head, 54).ok_or(bad)?, hex(&head, 94).ok_or(bad)?);
        let data = (at + HEAD_BYTES + name_len).next_multiple_of(4);
        let is_whole = data + data_len <= archive.len;
        ensure(head.starts_with(MAGIC) && name_len != 0 && is_whole, bad)?;
        let mut entry = Self {
            name: [0; NAME_BYTES],
            data: Span { start: Hpa(archive.start.0 + data), len: data_len },
            next: (data + data_len).next_multiple_of(4),
        };
        if name_len <= NAME_BYTES as u64 {
            let name = Hpa(archive.start.0 + at + HEAD_BYTES);
            let into = entry.name.get_mut(..name_len as usize).ok_or(bad)?;
            reached(memory.read(name, into), name)?;
        }
        Ok((entry.name() != b"TRAILER!!!").then_some(entry))
    }

    fn name(&self) -> &[u8] {
        self.name.split(|&byte| byte == 0).next().unwrap_or_default()
    }
}

/// Reads the eight hexadecimal digits at offset `at`.
fn hex(head: &[u8], at: usize) -> Option<u64> {
    let digits = head.get(at..at + 8)?;
    digits.iter().try_fold(0, |value, &digit| Some((value << 4) | u64::from(char::from(digit).to_digit(16)?)))
}
