//! What several test files share.

use gramme_vclock::{Actor, FixedDotSet, FixedSiblings, Minter};

/// The minter of a store that minted so many dots and last dropped a copy after so many of them.
#[allow(dead_code, reason = "not every file needs each")]
pub(crate) fn minter(actor: Actor, minted: u64, held_since: u64) -> Minter {
    assert!(held_since <= minted);
    let mut minter = Minter::new(actor);
    serve_other_keys(&mut minter, held_since);
    minter.break_hold();
    serve_other_keys(&mut minter, minted - held_since);
    minter
}

/// Other keys of the slot take so many counters.
pub(crate) fn serve_other_keys(minter: &mut Minter, writes: u64) {
    for _ in 0..writes {
        FixedSiblings::<(), 1, 1>::new().write(&FixedDotSet::new(), minter, ()).unwrap();
    }
}
