//! The cache outside the checkout: artefacts that are dear to make, each in a folder named by its inputs.
//!
//! A folder is made under a temporary name and moved in place when it is complete, so what is found under
//! its final name is whole. A file lock beside it keeps two runs from making the same thing twice.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::progress;

/// FNV-1a with 128 bits: names artefacts by content, with no claim against an adversary.
#[derive(Clone)]
pub(crate) struct Key(u128);

impl Key {
    /// A key that depends on nothing yet.
    pub(crate) fn new() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }

    /// Adds one input; its length is mixed in, so that `ab`,`c` differs from `a`,`bc`.
    pub(crate) fn with(mut self, input: impl AsRef<[u8]>) -> Self {
        let input = input.as_ref();
        for byte in (input.len() as u64).to_le_bytes().iter().chain(input) {
            self.0 = (self.0 ^ u128::from(*byte)).wrapping_mul(0x0100_0000_0000_0000_0000_013b);
        }
        self
    }

    /// Adds the content of a file.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn with_file(self, path: &Path) -> Result<Self> {
        let content = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(self.with(content))
    }

    /// The first 64 bits as text.
    pub(crate) fn text(&self) -> String {
        format!("{:016x}", (self.0 >> 64) as u64 ^ self.0 as u64)
    }
}

/// The root of the cache: `$XDG_CACHE_HOME/bulkhead`, else `~/.cache/bulkhead`.
///
/// # Errors
/// Neither variable is set, or the folder cannot be made.
pub(crate) fn root() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(base) => PathBuf::from(base),
        None => PathBuf::from(std::env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?)
            .join(".cache"),
    };
    let root = base.join("bulkhead");
    fs::create_dir_all(&root).with_context(|| format!("cannot make the cache folder {}", root.display()))?;
    Ok(root)
}

/// Takes the lock `name`, and says so when another run holds it; dropping the file gives it back.
///
/// # Errors
/// The lock file cannot be made.
pub(crate) fn lock(name: &str) -> Result<File> {
    let folder = root()?.join("locks");
    fs::create_dir_all(&folder)?;
    let file = File::create(folder.join(name))?;
    if file.try_lock().is_err() {
        progress::say(format_args!("waiting for another run that holds the lock `{name}` …"));
        file.lock()?;
    }
    Ok(file)
}

/// The folder `kind-name-key`; when it is not there yet, `make` fills an empty folder that becomes it.
///
/// # Errors
/// Those of `make`; the half-made folder is kept beside as `….failed` for a look at its logs.
pub(crate) fn artefact(
    kind: &str,
    name: &str,
    key: &Key,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let folder = format!("{kind}-{name}-{}", key.text());
    let place = root()?.join(&folder);
    if place.is_dir() {
        return Ok(place);
    }
    let _lock = lock(&folder)?;
    if place.is_dir() {
        return Ok(place);
    }
    let (temporary, failed) = (place.with_added_extension("tmp"), place.with_added_extension("failed"));
    for leftover in [&temporary, &failed] {
        if leftover.exists() {
            fs::remove_dir_all(leftover)?;
        }
    }
    fs::create_dir_all(&temporary)?;
    if let Err(error) = make(&temporary) {
        fs::rename(&temporary, &failed)?;
        return Err(error.context(format!("what was made so far is in {}", failed.display())));
    }
    fs::rename(&temporary, &place)?;
    Ok(place)
}

/// Removes every artefact of this kind and name.
///
/// # Errors
/// A folder cannot be removed.
pub(crate) fn forget(kind: &str, name: &str) -> Result<()> {
    let prefix = format!("{kind}-{name}-");
    for entry in fs::read_dir(root()?)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Key;

    #[test]
    fn key_depends_on_where_inputs_are_cut() {
        assert_ne!(Key::new().with("ab").with("c").text(), Key::new().with("a").with("bc").text());
        assert_eq!(Key::new().with("ab").text(), Key::new().with("ab").text());
    }
}
