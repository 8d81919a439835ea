//! The hypervisor's log, asked for through the root's driver.

use anyhow::Context;
use tlfs::partition::LogProperty;

use crate::raw;

/// Reads what the hypervisor has logged, as far as its ring reaches back.
///
/// # Errors
/// This system is no root, or the hypervisor below it is another.
pub(crate) fn read() -> anyhow::Result<String> {
    let driver = std::fs::OpenOptions::new().read(true).write(true).open("/dev/mshv");
    let driver = driver.context("cannot open /dev/mshv; is this the root of a hypervisor?")?;
    let mut text = Vec::new();
    let mut next = 0;
    loop {
        let LogProperty { next: after, len, text: piece } =
            raw::log_piece(&driver, next).context("the hypervisor shows no log; is it a Bulkhead?")?;
        let piece = piece.get(..len as usize).unwrap_or_default();
        if piece.is_empty() {
            break;
        }
        text.extend_from_slice(piece);
        next = after;
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}
