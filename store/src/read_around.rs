//! Reading on where a disk gives fewer bytes than it was asked for, and around what it does not read.

use crate::disk::{DiskError, DiskErrorKind, DiskFile};

/// Bytes that are given up together: what an operating system reads at once.
const BLOCK_BYTES: u64 = 4096;
/// Stands where nothing could be read. No header begins with it, and no checksum holds over it.
const FILLER: u8 = 0xa5;

/// Reads until `into` is full or the file ends; answers how many bytes there are.
pub(crate) fn read_full<F: DiskFile>(file: &F, offset: u64, into: &mut [u8]) -> Result<usize, DiskError> {
    let mut done = 0;
    while done < into.len() {
        match file.read_at(offset + done as u64, &mut into[done..])? {
            0 => break,
            read => done += read,
        }
    }
    Ok(done)
}

/// Reads as [`read_full`] does, but for blocks that the disk refuses: they are filled, and their ranges told.
pub(crate) fn read_around<F: DiskFile>(
    file: &F,
    offset: u64,
    into: &mut [u8],
    refused: &mut dyn FnMut(u64, u64),
) -> Result<usize, DiskError> {
    let is_refused = |error: &DiskError| error.kind() == DiskErrorKind::Io;
    match read_full(file, offset, into) {
        Err(error) if is_refused(&error) => {}
        read => return read,
    }
    let end = offset + into.len() as u64;
    let block_end = (offset / BLOCK_BYTES + 1) * BLOCK_BYTES;
    if end <= block_end {
        // Once more, for errors that do not last.
        return match read_full(file, offset, into) {
            Err(error) if is_refused(&error) => {
                refused(offset, end);
                into.fill(FILLER);
                Ok(into.len())
            }
            read => read,
        };
    }
    let middle = ((offset + (end - offset) / 2) / BLOCK_BYTES * BLOCK_BYTES).max(block_end);
    let (before, after) = into.split_at_mut(usize::try_from(middle - offset).expect("inside the buffer"));
    let read = read_around(file, offset, before, refused)?;
    if read < before.len() {
        return Ok(read);
    }
    Ok(read + read_around(file, middle, after, refused)?)
}
