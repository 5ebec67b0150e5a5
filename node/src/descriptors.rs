//! How many files and connections this process may have open.
//!
//! Each client is one of them, each segment of the store, each connection between members. Those who bound their
//! clients take a share of [`limit`], so that no kind of them can shut out another.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Enough for all clients of all protocols and a store of a terabyte in files of the usual size.
const ENOUGH: u64 = 1 << 16;

/// Raises the limit as far as this process may and needs: what a shell sets by default is meant for programs that
/// use `select`.
pub(crate) fn raise() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(ENOUGH, |most| most.min(ENOUGH));
    if current.is_some_and(|current| current < wanted) {
        // Refused, the old one holds, and all shares follow from that.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
    }
}

/// The limit.
pub(crate) fn limit() -> usize {
    let current = getrlimit(Resource::Nofile).current.unwrap_or(ENOUGH);
    usize::try_from(current).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_had_is_had() {
        raise();
        let most = getrlimit(Resource::Nofile).maximum.map_or(ENOUGH, |most| most.min(ENOUGH));
        assert!(limit() as u64 >= most, "{} of {most}", limit());
    }
}
