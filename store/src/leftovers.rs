//! The names of a store's files, and which of the files in a directory are its own to remove.

use crate::chain::CHAIN;
use crate::checksum::Place;
use crate::disk::{Disk, DiskErrorKind, DiskFile};
use crate::error::OpenError;
use crate::index_file;
use crate::manifest::{MANIFEST, MANIFEST_NEXT, Manifest};
use crate::read_around::read_around;
use crate::replay::read_header;
use crate::room::{PROBE, RESERVE};
use crate::scan::{Found, Scan};
use crate::segment::{HeaderState, SegmentHeader, SegmentId, SegmentKind};
use alloc::string::String;
use alloc::vec::Vec;

/// Numbers of segments that are passed over for the sake of files that are in the way. Later ones never come up.
const MAX_SKIPPED: u64 = 1 << 32;

/// Whether a file of this name is a store's, or the beginning of one.
pub(crate) fn is_a_stores(name: &str) -> bool {
    [MANIFEST, MANIFEST_NEXT, CHAIN, RESERVE, PROBE].contains(&name)
        || SegmentId::of_file_name(name).is_some()
        || index_file::segment_of_file_name(name).is_some()
}

/// Whether a directory without a manifest may become a store's: nothing in it has the name of a store's file, but for the
/// first manifest, half made.
pub(crate) fn is_free(names: &[String]) -> bool {
    !names.iter().any(|name| is_a_stores(name) && name != MANIFEST_NEXT)
}

/// What an interrupted step left behind.
pub(crate) struct Leftovers {
    /// Files to be removed.
    pub(crate) names: Vec<String>,
    /// The first number for a new segment that no file is in the way of.
    pub(crate) next_segment: u64,
}

/// Finds what an interrupted step left behind. A segment that the manifest does not name yet holds records only if the
/// manifest is an old one: that is an error, and so is another store's. Of what is not known to be this store's nothing is removed.
pub(crate) fn leftovers<D: Disk>(
    disk: &D,
    names: &[String],
    manifest: &Manifest,
) -> Result<Leftovers, OpenError> {
    let mut found = Leftovers { names: Vec::new(), next_segment: manifest.next_segment };
    let listed = |id| manifest.entries.iter().any(|entry| entry.id == id);
    for name in names {
        if name == MANIFEST_NEXT || name == PROBE {
            found.names.push(name.clone());
            continue;
        }
        let (segment, index_file) = (SegmentId::of_file_name(name), index_file::segment_of_file_name(name));
        let Some(id) = segment.or(index_file).filter(|id| !listed(*id)) else { continue };
        let is_ours = match disk.open(name) {
            // A directory, or a link to nowhere.
            Err(error) if matches!(error.kind(), DiskErrorKind::NotAFile | DiskErrorKind::NotFound) => false,
            opened if segment.is_some() => is_left_segment(&opened?, manifest, id)?,
            opened => index_file::is_of_store(&opened?, &manifest.store)?,
        };
        if is_ours {
            found.names.push(name.clone());
        } else if id.0 < manifest.next_segment.saturating_add(MAX_SKIPPED) {
            found.next_segment = found.next_segment.max(id.0 + 1);
        }
    }
    Ok(found)
}

fn is_left_segment<F: DiskFile>(file: &F, manifest: &Manifest, id: SegmentId) -> Result<bool, OpenError> {
    match read_header(file)? {
        HeaderState::Sound(header) if header.store == manifest.store => {
            let is_new = id.0 >= manifest.next_segment;
            if is_new && header.kind == SegmentKind::Log && holds_a_record(file, &header)? {
                return Err(OpenError::ManifestStale { segment: id });
            }
            Ok(true)
        }
        HeaderState::Sound(_) => Err(OpenError::SegmentForeign { segment: id }),
        // A crash while the header was written.
        _ => begins_like(file, &SegmentHeader::known(&manifest.store, &id.0.to_le_bytes())),
    }
}

/// Whether these bytes stand at these offsets, or zeros in the places of some or all: a header that was written, or was
/// about to be.
pub(crate) fn begins_like<F: DiskFile>(file: &F, parts: &[(usize, &[u8])]) -> Result<bool, OpenError> {
    let mut bytes = [0; 64];
    read_around(file, 0, &mut bytes, &mut |_, _| ())?;
    let is_like = |(at, part): &(usize, &[u8])| {
        bytes[*at..].iter().zip(*part).all(|(byte, due)| *byte == 0 || byte == due)
    };
    Ok(parts.iter().all(is_like))
}

fn holds_a_record<F: DiskFile>(file: &F, header: &SegmentHeader) -> Result<bool, OpenError> {
    let mut scan = Scan::new(file.clone(), Place::new(header.salt, header.id.0), u64::MAX, Vec::new())?;
    loop {
        match scan.next()? {
            Found::Record { .. } => return Ok(true),
            Found::Gap { trailing: false, .. } | Found::Searching => {}
            Found::Gap { trailing: true, .. } | Found::End { .. } => return Ok(false),
        }
    }
}
