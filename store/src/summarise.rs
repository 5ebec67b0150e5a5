//! Summarising all segments of a store, one after the other or, with threads, side by side.

use crate::batch::Batch;
use crate::checksum::Place;
use crate::disk::{DiskError, DiskErrorKind, DiskFile};
use crate::error::OpenError;
use crate::index_file::{self, Subject};
use crate::manifest::Entry;
use crate::segment::SegmentId;
use crate::summary::{self, Hashes, Sink, Source, Summary};

/// From so many bytes of segments on it pays to summarise several at once.
#[cfg(feature = "std")]
const PARALLEL_BYTES: u64 = 8 << 20;

/// One segment to be summarised.
pub(crate) struct Job<'m, F> {
    pub(crate) entry: &'m Entry,
    pub(crate) file: F,
    pub(crate) place: Place,
    /// No record of a log segment has a smaller sequence.
    pub(crate) base: u64,
    /// What its index file must be of, if that is to be used.
    pub(crate) subject: Option<Subject>,
    /// The index file, if it was [opened](Self::ready) and is there.
    pub(crate) index: Option<F>,
    /// An index file is there and can't be opened.
    pub(crate) index_is_bad: bool,
}

impl<'m, F: DiskFile> Job<'m, F> {
    /// The same, with its index file opened: not before it is the job's turn, for a process may have so many files open and no more.
    fn ready(&self, open_index: OpenIndex<'_, F>) -> Job<'m, F> {
        let opened = self.subject.map(|subject| open_index(subject.segment));
        let index_is_bad = matches!(&opened, Some(Err(error)) if error.kind() != DiskErrorKind::NotFound);
        Job { file: self.file.clone(), index: opened.and_then(Result::ok), index_is_bad, ..*self }
    }

    fn run(&self, hashes: &Hashes, sink: Sink<'_>) -> Result<Summary, DiskError> {
        let mut source = if self.index_is_bad { Source::ScanForBadIndexFile } else { Source::Scan };
        let (mut removals, mut hash) = (0, None);
        if let (Some(file), Some(subject)) = (&self.index, &self.subject) {
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
    Lines(u16, Batch),
    Ends(u16, Summary),
}

/// Opens a segment's index file.
pub(crate) type OpenIndex<'a, F> = &'a dyn Fn(SegmentId) -> Result<F, DiskError>;

/// Summarises segments and hands the parts on in order. At most two batches of lines for each thread wait for it.
#[cfg_attr(not(feature = "std"), allow(unused_variables))]
pub(crate) fn each_summary<F: DiskFile>(
    jobs: &[Job<'_, F>],
    hashes: &Hashes,
    threads: usize,
    open_index: OpenIndex<'_, F>,
    take: impl FnMut(usize, News) -> Result<u16, OpenError>,
) -> Result<(), OpenError> {
    #[cfg(feature = "std")]
    {
        let bytes: u64 = jobs.iter().map(|job| job.entry.sealed.unwrap_or(job.entry.capacity)).sum();
        if threads > 1 && jobs.len() > 1 && bytes >= PARALLEL_BYTES {
            return in_parallel(jobs, hashes, threads.min(jobs.len()), open_index, take);
        }
    }
    one_by_one(jobs, hashes, open_index, take)
}

fn one_by_one<F: DiskFile>(
    jobs: &[Job<'_, F>],
    hashes: &Hashes,
    open_index: OpenIndex<'_, F>,
    mut take: impl FnMut(usize, News) -> Result<u16, OpenError>,
) -> Result<(), OpenError> {
    for (at, job) in jobs.iter().enumerate() {
        let number = take(at, News::Begins)?;
        let mut failed = Ok(());
        let summary = job.ready(open_index).run(hashes, &mut |lines| {
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
    open_index: OpenIndex<'_, F>,
    mut take: impl FnMut(usize, News) -> Result<u16, OpenError>,
) -> Result<(), OpenError> {
    use alloc::vec::Vec;
    use std::sync::mpsc::{channel, sync_channel};
    enum Part {
        Lines(Batch),
        End(Result<Summary, DiskError>),
    }
    std::thread::scope(|scope| {
        let (mut shares, mut parts) = (Vec::new(), Vec::new());
        for _ in 0..threads {
            let (give, share) = channel::<Job<'_, F>>();
            let (sender, receiver) = sync_channel(1);
            let spawned = std::thread::Builder::new().spawn_scoped(scope, move || {
                for job in share {
                    let summary = job.run(hashes, &mut |lines| sender.send(Part::Lines(lines)).is_ok());
                    // Its index file is closed before another is opened.
                    drop(job);
                    // Nobody listens any more after an error.
                    if sender.send(Part::End(summary)).is_err() {
                        return;
                    }
                }
            });
            // Where the system gives no more threads, those that there are do it.
            if spawned.is_err() {
                break;
            }
            shares.push(give);
            parts.push(receiver);
        }
        let threads = parts.len();
        if threads == 0 {
            return one_by_one(jobs, hashes, open_index, take);
        }
        let mut given = 0;
        for at in 0..jobs.len() {
            // Each thread has one at hand when it is through with another.
            while given < jobs.len().min(at + 2 * threads) {
                // A thread that is gone has panicked.
                let _ = shares[given % threads].send(jobs[given].ready(open_index));
                given += 1;
            }
            if given == jobs.len() {
                shares.clear();
            }
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
