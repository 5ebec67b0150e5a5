//! `gramme verify`: reads every record of a store that nobody has open, checks the chain of its segments' hashes, and
//! changes nothing.

use super::{Failure, print};
use crate::identity::{DataDir, STORE};
use gramme_store::{DamageKind, FileDisk, Head, OpenError, verify};
use std::fmt::Write as _;
use std::path::PathBuf;

#[derive(clap::Args)]
pub(super) struct Verify {
    /// A node's data directory, or the store in it
    dir: PathBuf,
    /// The head that an earlier verification printed: show if the store was cut back or rewritten since
    #[arg(long, value_name = "HEAD")]
    head: Option<Head>,
}

impl Verify {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let failed =
            |why: &dyn std::fmt::Display| Failure::new(format!("verify {}: {why}", self.dir.display()));
        let inner = self.dir.join(STORE);
        let path = if inner.is_dir() { inner } else { self.dir.clone() };
        if !path.is_dir() {
            // Opening the disk would make the directory.
            return Err(failed(&"there is no such directory: name the one that was given to --dir"));
        }
        let disk = FileDisk::open(&path).map_err(|e| failed(&e))?;
        let verified = verify(&disk, self.head).map_err(|e| match e {
            OpenError::Disk(e) if e.kind() == gramme_store::DiskErrorKind::Locked => {
                failed(&"a node is running on it: stop that first")
            }
            e => failed(&e),
        })?;

        let found = verified.report;
        let mut out = String::new();
        if !verified.locked {
            out.push_str(
                "it could not be locked: what is told as damaged may be what a node changed meanwhile; again with none running on it, or on a copy\n",
            );
        }
        let _ = writeln!(
            out,
            "{} segments, {} records, {} keys, {} bytes read; last stop {}",
            found.segments,
            found.records,
            found.keys,
            found.bytes,
            if found.clean { "clean" } else { "unclean" }
        );
        if found.bad_index_files > 0 {
            let _ = writeln!(
                out,
                "{} index files are of no use, as a crash leaves them: the next start reads their segments instead",
                found.bad_index_files
            );
        }
        for torn in &found.torn {
            let _ = writeln!(
                out,
                "segment {}, bytes {} to {}: no whole records: a write cut short, or damage to the last ones",
                torn.segment, torn.start, torn.end
            );
        }
        // What starts have cut off before is no longer in the store.
        for place in DataDir::new(&self.dir).torn_places().map_err(|e| failed(&e))?.lines() {
            let _ = writeln!(out, "noted by an earlier start: {place}");
        }
        for damage in &found.damage {
            let place = match damage.segment {
                Some(segment) => format!("segment {segment}"),
                None if matches!(damage.kind, DamageKind::Manifest) => "manifest".to_owned(),
                None => "chain of hashes".to_owned(),
            };
            let what = describe(damage.kind);
            let _ = writeln!(out, "{place}, bytes {} to {}: {what}", damage.start, damage.end);
        }
        let _ = writeln!(out, "head {} of {} sealed segments", verified.head, verified.sealed_segments);
        print(out.as_bytes())?;
        if found.damage.is_empty() {
            return Ok(());
        }
        Err(failed(&format!(
            "{} damaged places: start the node with its peers up, and it takes what it can from them",
            found.damage.len()
        )))
    }
}

/// What is damaged, in words.
fn describe(kind: DamageKind) -> String {
    match kind {
        DamageKind::Manifest => "one copy is damaged; the other is whole".to_owned(),
        DamageKind::SegmentHeader => "its header is damaged; the manifest knows what it said".to_owned(),
        DamageKind::Mended { slot } => {
            format!("one bit of a record of slot {slot} is wrong and can be mended")
        }
        DamageKind::Record { slot, .. } => format!("a record of slot {slot} is damaged"),
        DamageKind::Unknown => "records are damaged beyond telling which".to_owned(),
        DamageKind::Unreadable => {
            "unreadable: the disk refuses to read it; should it read it again, what is there counts"
                .to_owned()
        }
        DamageKind::CutOff => "it ends before its last durable record".to_owned(),
        DamageKind::Chain => "it is damaged or gone: what it vouched for can't be shown".to_owned(),
        DamageKind::Altered => "its bytes are not those that were sealed".to_owned(),
        DamageKind::Hidden => {
            "whole records in it would not be found as they are: the manifest or its index file was altered"
                .to_owned()
        }
        DamageKind::Removed => "it was sealed here, and is gone from the manifest".to_owned(),
        DamageKind::HeadUnknown => {
            "the given head is not in it: the store was cut back, or rewritten, or is another one".to_owned()
        }
        _ => "damaged".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_disk_refuses_to_read_is_not_called_damaged() {
        let said = describe(DamageKind::Unreadable);
        assert!(said.contains("refuses to read") && !said.contains("damaged"), "{said}");
    }
}
