//! Summarising all segments of a store, one after the other or, with threads, side by side.

use crate::checksum::Place;
use crate::disk::{DiskError, DiskFile};
use crate::error::OpenError;
use crate::index_file::{self, Subject};
use crate::manifest::Entry;
use crate::summary::{self, Hashes, Line, Sink, Source, Summary};
use alloc::vec::Vec;

/// From so many bytes of segments on it pays to summarise several at once.
#[cfg(feature = "std")]
const PARALLEL_BYTES: u64 = 8 << 20;

/// One segment to be summarised.
pub(crate) struct Job<'m, F> {
    pub(crate) entry: &'m Entry,
    pub(crate) file: F,
    pub(crate) place: Place,
    pub(crate) index: Option<(F, Subject)>,
    /// An index file is there and can't be opened.
    pub(crate) index_is_bad: bool,
}

impl<F: DiskFile> Job<'_, F> {
    fn run(&self, hashes: &Hashes, sink: Sink<'_>) -> Result<Summary, DiskError> {
        let mut source = if self.index_is_bad { Source::ScanForBadIndexFile } else { Source::Scan };
        let (mut removals, mut hash) = (0, None);
        if let Some((file, subject)) = &self.index {
            // Lines from blocks that were whole are true, whatever the rest is: the scan finds them again, but those of
            // records that were cut off.
            match index_file::read(file, subject, sink) {
                Ok(Some(summary)) if self.file.size()? >= subject.len => return Ok(summary),
                Ok(Some(summary)) => (removals, hash) = (summary.removals, summary.hash),
                _ => {}
            }
            source = Source::ScanForBadIndexFile;
        }
        let mut summary = summary::scan(self.file.clone(), self.place, self.entry, hashes, source, sink)?;
        summary.removals = summary.removals.max(removals);
        summary.hash = hash;
        Ok(summary)
    }
}

/// What becomes known of a segment, in this order. Numbers are those that `Begins` was answered with.
pub(crate) enum News {
    Begins,
    Lines(u16, Vec<Line>),
    Ends(u16, Summary),
}

/// Summarises segments and hands the parts on in order. At most two batches of lines for each thread are in memory.
#[cfg_attr(not(feature = "std"), allow(unused_variables))]
pub(crate) fn each_summary<F: DiskFile>(
    jobs: &[Job<'_, F>],
    hashes: &Hashes,
    threads: usize,
    mut take: impl FnMut(usize, News) -> Result<u16, OpenError>,
) -> Result<(), OpenError> {
    #[cfg(feature = "std")]
    {
        let bytes: u64 = jobs.iter().map(|job| job.entry.sealed.unwrap_or(job.entry.capacity)).sum();
        if threads > 1 && jobs.len() > 1 && bytes >= PARALLEL_BYTES {
            return in_parallel(jobs, hashes, threads.min(jobs.len()), take);
        }
    }
    for (at, job) in jobs.iter().enumerate() {
        let number = take(at, News::Begins)?;
        let mut failed = Ok(());
        let summary = job.run(hashes, &mut |lines| {
            failed = take(at, News::Lines(number, lines)).map(|_| ());
            failed.is_ok()
        });
        failed?;
        take(at, News::Ends(number, summary?))?;
    }
    Ok(())
}

#[cfg(feature = "std")]
fn in_parallel<F: DiskFile>(
    jobs: &[Job<'_, F>],
    hashes: &Hashes,
    threads: usize,
    mut take: impl FnMut(usize, News) -> Result<u16, OpenError>,
) -> Result<(), OpenError> {
    use std::sync::mpsc::sync_channel;
    enum Part {
        Lines(Vec<Line>),
        End(Result<Summary, DiskError>),
    }
    // Files are handles to be sent, not shared: each thread gets its own.
    let mut shares: Vec<Vec<Job<'_, F>>> = Vec::new();
    shares.resize_with(threads, Vec::new);
    for (at, job) in jobs.iter().enumerate() {
        let index = job.index.clone();
        shares[at % threads].push(Job { entry: job.entry, file: job.file.clone(), index, ..*job });
    }
    std::thread::scope(|scope| {
        let mut parts = Vec::new();
        for share in shares {
            let (sender, receiver) = sync_channel(1);
            parts.push(receiver);
            scope.spawn(move || {
                for job in share {
                    let summary = job.run(hashes, &mut |lines| sender.send(Part::Lines(lines)).is_ok());
                    // Nobody listens any more after an error.
                    if sender.send(Part::End(summary)).is_err() {
                        return;
                    }
                }
            });
        }
        for at in 0..jobs.len() {
            let number = take(at, News::Begins)?;
            let summary = loop {
                match parts[at % threads].recv() {
                    Ok(Part::Lines(lines)) => take(at, News::Lines(number, lines))?,
                    Ok(Part::End(summary)) => break summary?,
                    // The thread panicked, and so will the scope.
                    Err(_) => return Ok(()),
                };
            };
            take(at, News::Ends(number, summary))?;
        }
        Ok(())
    })
}
