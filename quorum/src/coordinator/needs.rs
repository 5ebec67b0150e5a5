//! What a write takes, and whether it can be had.

use super::Plan;
use crate::engine::Engine;
use crate::op::{Level, Need, OpError, WriteOptions};
use crate::planted::Bug;
use crate::tally::Shortfall;

impl Engine {
    pub(super) fn write_needs(
        &self,
        key: &[u8],
        options: &WriteOptions,
        replicas: u8,
    ) -> Result<[(Need, u8); 2], OpError> {
        let resolve = |need, level: Option<Level>, default: u8| match level {
            None => Ok(default),
            Some(level) => level.resolve(replicas).ok_or(OpError::Level { need, replicas }),
        };
        let w = resolve(Need::W, options.w, self.rules(key).w(replicas))?;
        let w = if self.config.planted.is(Bug::WTooLow) { w.max(2) - 1 } else { w };
        let pw = resolve(Need::Pw, options.pw, 0)?;
        // With DW every acknowledgement is durable, so that it only asks for more of them.
        let dw = resolve(Need::Dw, options.dw, 0)?;
        Ok([if dw > w { (Need::Dw, dw) } else { (Need::W, w) }, (Need::Pw, pw)])
    }
}

/// What can't be met even if every healthy node agrees.
pub(crate) fn out_of_reach(plan: &Plan, needs: [(Need, u8); 2]) -> Option<Shortfall> {
    let reach = [plan.targets.len(), plan.primaries()].map(|n| u8::try_from(n).unwrap_or(u8::MAX));
    let mut short = needs.into_iter().zip(reach).filter(|((_, want), have)| have < want);
    short.next().map(|((need, want), have)| Shortfall { need, have, want })
}

/// What may be done and may not.
pub(super) const fn indeterminate(Shortfall { need, have, want }: Shortfall) -> OpError {
    OpError::Indeterminate { need, have, want }
}
