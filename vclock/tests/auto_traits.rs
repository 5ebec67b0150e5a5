//! Every type of the interface can go to another thread and be shared among them. The compiler derives that unasked, and
//! a field that lacks it would take it away as silently.

use gramme_vclock::*;

const fn threads<T: Send + Sync + Unpin + 'static>() {}

// Whether this compiles is the test.
const _: () = {
    threads::<Actor>();
    threads::<Dot>();
    threads::<Span>();
    threads::<Causality>();
    threads::<Checked<Dot>>();
    threads::<Full>();
    threads::<Malformed>();
    threads::<FixedDotSet<2>>();
    threads::<GrowableDotSet>();
    threads::<InlineVec<Dot, 2>>();
    threads::<InlineVecIntoIter<Dot, 2>>();
    threads::<ParseActorError>();
    threads::<FixedContext<2>>();
    threads::<GrowableContext>();
    threads::<Minter>();
    threads::<WriteError<Full>>();
    threads::<FixedSiblings<u8, 2, 2>>();
    threads::<GrowableSiblings<u8>>();
    threads::<SiblingsIter<'static, u8>>();
    threads::<Written<heapless::Vec<Span, 2>>>();
    threads::<Merged>();
    threads::<Entry>();
    threads::<FixedVersionVector<2>>();
    threads::<GrowableVersionVector>();
    threads::<FixedTimedVector<2>>();
    threads::<GrowableTimedVector>();
    threads::<IncrementError<Full>>();
    threads::<Hlc>();
    threads::<Stamp>();
    threads::<StampOutOfRange>();
    threads::<ParseStampError>();
    threads::<SealKey>();
    threads::<SealError>();
    threads::<TokenError>();
};
